"""Other ways from pictures to vectors: a Hugging Face pipeline, a timm DataLoader loop.

Each way runs in processes of its own: ``python -m benchmarks.baselines WAY MODEL_FOLDER LIST_OF_FILES``.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import CORES, REPOSITORY

Way = Callable[[Sequence[Path], Path, int], Iterator[int]]
"""(pictures, model folder, batch size) -> yields after each batch how many pictures it has done."""


def card_and_network(folder: Path):
    from shopvision.encoders.image_networks import load_network
    from shopvision.models.card import CARD_FILE, ModelCard

    card = ModelCard.from_bytes((folder / CARD_FILE).read_bytes(), str(folder))
    return card, load_network(folder, card)


def hugging_face(paths: Sequence[Path], folder: Path, _batch_size: int) -> Iterator[int]:
    """``pipeline("image-feature-extraction")`` as its documentation shows it."""
    import timm
    from transformers import TimmWrapperConfig, TimmWrapperImageProcessor, TimmWrapperModel, pipeline

    card, network = card_and_network(folder)
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

    _, network = card_and_network(folder)
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


BATCH_SIZE = 32
SHARE = 0.25  # of the pictures: these ways are slow
WAYS: dict[str, Way] = {
    "Hugging Face pipeline as documented": hugging_face,
    "timm + DataLoader, float32": data_loader,
}


@dataclass(frozen=True)
class Rate:
    """Images per second, in steady state and of the whole process, start-up included."""

    steady: float
    whole: float


def measure(way: str, paths: Sequence[Path], folder: Path) -> Rate:
    """Run one way on the first few pictures, without our memory settings."""
    some = paths[: max(64, round(len(paths) * SHARE))]
    return rate_of("benchmarks.baselines", way, str(folder), some, processes=1, tuned=False)


def rate_of(module: str, way: str, models: str, paths: Sequence[Path], *, processes: int, tuned: bool) -> Rate:
    """Run ``python -m MODULE WAY MODELS LIST_OF_FILES`` in so many processes, which share the pictures.

    Args:
        module: whose main part calls ``print_marks``.
        way: see above.
        models: see above.
        paths: see above.
        processes: see above.
        tuned: with the malloc settings of our workers.
    """
    from worker.stack.processes import MALLOC_TUNABLES

    environment = os.environ | {"GLIBC_TUNABLES": MALLOC_TUNABLES if tuned else ""}
    with tempfile.TemporaryDirectory() as scratch:
        started = time.time()
        children = []
        for number in range(processes):
            listing = Path(scratch, str(number))
            listing.write_text("\n".join(map(str, paths[number::processes])), encoding="utf-8")
            command = [sys.executable, "-m", module, way, models, str(listing)]
            children.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True, cwd=REPOSITORY
                )
            )
        outputs = [child.communicate() for child in children]
        ended = time.time()
    for child, (_, errors) in zip(children, outputs, strict=True):
        if child.returncode:
            raise SystemExit(f"{way} failed:\n{errors[-2000:]}")
    marks = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    return Rate(_steady_rate(marks), len(paths) / (ended - started))


def _steady_rate(processes: Sequence[Sequence[tuple[float, int]]]) -> float:
    """Images per second of all processes together while each was past its first tenth and none had ended.

    NaN where there was no such time: the run was too short.
    """
    begin = max(marks[len(marks) // 10][0] for marks in processes)
    end = min(marks[-1][0] for marks in processes)
    if end <= begin:
        return math.nan
    done = sum(np.diff(np.interp([begin, end], *zip(*marks, strict=True)))[0] for marks in processes)
    return float(done / (end - begin))


def print_marks(counts: Iterator[int]) -> None:
    """The output of one process of one way: (wall-clock time, pictures done) after each batch."""
    done, marks = 0, []
    for count in counts:
        done += count
        marks.append((time.time(), done))
    print(json.dumps(marks))


def paths_in(listing: str) -> list[Path]:
    """The pictures of one process."""
    return [Path(line) for line in Path(listing).read_text(encoding="utf-8").splitlines()]


def _child(way: str, folder: str, listing: str) -> None:
    import torch

    torch.set_num_threads(CORES)
    print_marks(WAYS[way](paths_in(listing), Path(folder), BATCH_SIZE))


if __name__ == "__main__":
    _child(*sys.argv[1:])
