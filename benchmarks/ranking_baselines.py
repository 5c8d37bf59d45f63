"""What rank_plans and the training of CLIK are compared with, and that training itself, in processes of their own.

``python -m benchmarks.ranking_baselines WAY ...`` prints one line of JSON; :func:`measure` runs it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from benchmarks.common import REPOSITORY, peak_mib

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing

PICTURES_AT_ONCE = 50  # candidates of a plan in the published evaluation; 500 at once need 5 GB and are no faster


def measure(way: str, *arguments: object) -> Any:
    """Run one way in a process of its own and return what it printed."""
    command = [sys.executable, "-m", "benchmarks.ranking_baselines", way, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def published(model: str, plans: str) -> list[tuple[float, list[float]]]:
    """Rank one plan after the other: its text and all its pictures through plain float32 networks.

    Args:
        model: folder of the model version.
        plans: JSON file, a list of ``{"topic": {slot: text}, "pictures": [path, ...]}``; the first one is done once
            more before, to warm up.

    Returns:
        For each plan the seconds that it took and its pictures' scores.
    """
    import torch
    from PIL import Image

    from shopvision.selection.clik.card import load_clik
    from shopvision.selection.topic import Topic

    loaded = load_clik(Path(model))
    clik = loaded.clik
    transform = _transform(loaded.preprocessing, crop=False)

    @torch.inference_mode()
    def scores(topic: dict[str, Any], pictures: Sequence[str]) -> list[float]:
        topics = clik.txt_encoder(loaded.topic_tokenizer.encode([Topic.from_mapping(topic)]))
        vectors = []
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            some = pictures[start : start + PICTURES_AT_ONCE]
            vectors.append(clik.img_encoder(torch.stack([transform(Image.open(path).convert("RGB")) for path in some])))
        return clik.compatibility(topics, torch.cat(vectors).unsqueeze(0))[0].tolist()

    wanted = json.loads(Path(plans).read_text(encoding="utf-8"))
    scores(**wanted[0])
    results = []
    for plan in wanted:
        started = time.perf_counter()
        found = scores(**plan)
        results.append((time.perf_counter() - started, found))
    return results


def train(config: str, output: str) -> dict[str, float]:
    """``train_clik`` as the command runs it."""
    from shopvision.selection.clik.config import ClikConfig
    from shopvision.selection.clik.train import train_clik
    from shopvision.training.run import TrainingRun

    marks: list[float] = []
    settled = ClikConfig.model_validate_json(Path(config).read_bytes())
    train_clik(settled, TrainingRun(output=Path(output), on_progress=lambda _: marks.append(time.time())))
    return _training_result(marks)


def plain_loop(config: str, steps: str) -> dict[str, float]:
    """The same steps by a DataLoader with two workers and both encoders, float32, in every step.

    Frozen encoders get no gradients here either, but they run.
    """
    import torch

    from shopvision.selection.clik.config import ClikConfig
    from shopvision.selection.clik.losses import image_ranking_loss, topic_matching_loss, total_loss
    from shopvision.selection.clik.preparation import fetch_encoders
    from shopvision.selection.clik.sampling import RankingSampler
    from shopvision.selection.clik.train import read_splits

    settled = ClikConfig.model_validate_json(Path(config).read_bytes())
    data = read_splits(settled)["train"]
    matching, groups, size = settled.train.matching_batch, settled.train.groups, settled.train.group_size
    sampler = RankingSampler(data, matching_batch=matching, groups=groups, group_size=size, seed=settled.train.seed)
    encoders = fetch_encoders(settled, matching)
    clik = encoders.clik.train(not settled.model.frozen)
    for tower in (clik.txt_encoder, clik.img_encoder):
        tower.enc.requires_grad_(not settled.model.frozen)
    samples = [sample for _, sample in zip(range(int(steps)), sampler.epoch(1), strict=False)]
    dataset = _Steps(data, samples, encoders.tokenizer, _transform(encoders.image.preprocessing, crop=True))
    rate = settled.learning_rates[0]
    optimizer = torch.optim.AdamW([weight for weight in clik.parameters() if weight.requires_grad], lr=rate)
    marks = []
    for tokens, pixels in torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2):
        topics, pictures = clik.txt_encoder(tokens), clik.img_encoder(pixels)
        clik.replace_bank(pictures[:matching].detach())
        compatibility = clik.compatibility(topics[matching:], pictures[matching:].view(groups, size, -1))
        loss = total_loss(
            topic_matching_loss(topics[:matching], pictures[:matching]), image_ranking_loss(compatibility)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        marks.append(time.time())
    return _training_result(marks)


class _Steps:
    """Tokens and pixels of whole steps, the matching part first: a data set of torch."""

    def __init__(self, data: Any, samples: Sequence[Any], tokenizer: Any, transform: Callable[[Any], Any]) -> None:
        self._data, self._samples, self._tokenizer, self._transform = data, samples, tokenizer, transform

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        import numpy as np
        import torch
        from PIL import Image

        sample, products = self._samples[number], self._data.products
        pairs = zip(sample.matching_exhibitions, sample.matching_products, sample.augment, strict=True)
        topics = [
            products.topic(int(product)) if own else self._data.exhibitions[exhibition].topic
            for exhibition, product, own in pairs
        ]
        topics += [self._data.exhibitions[exhibition].topic for exhibition in sample.ranking_exhibitions]
        shown = np.concatenate([sample.matching_products, sample.ranking_products.ravel()])
        paths = [unquote(urlsplit(products.image(int(product))).path) for product in shown]
        pixels = torch.stack([self._transform(Image.open(path).convert("RGB")) for path in paths])
        return self._tokenizer.encode(topics, word_dropout=0.1, generator=np.random.default_rng(number)), pixels


def _transform(preprocessing: Preprocessing, *, crop: bool) -> Callable[[Any], Any]:
    """The published transforms: the whole picture; in training a random crop of one 1.15 times as large."""
    from torchvision import transforms

    size = list(preprocessing.size)
    filtered = transforms.InterpolationMode(preprocessing.interpolation)
    resize = [transforms.Resize(size, filtered)]
    if crop:
        resize = [transforms.Resize([int(side * 1.15) for side in size], filtered), transforms.RandomCrop(size)]
    normalize = transforms.Normalize(preprocessing.mean, preprocessing.std)
    return transforms.Compose([*resize, transforms.ToTensor(), normalize])


def _training_result(marks: Sequence[float]) -> dict[str, float]:
    """From the moments at which steps ended; the rate leaves out the first tenth, at least the first step."""
    import psutil

    first = max(1, len(marks) // 10) - 1
    return {
        "before_first_step": marks[0] - psutil.Process().create_time(),
        "steps_per_second": (len(marks) - 1 - first) / (marks[-1] - marks[first]),
        "peak_mib": peak_mib(),
    }


if __name__ == "__main__":
    ways: dict[str, Callable[..., Any]] = {"published": published, "train": train, "plain_loop": plain_loop}
    print(json.dumps(ways[sys.argv[1]](*sys.argv[2:])))
