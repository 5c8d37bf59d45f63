"""refresh_embeddings end to end, through Celery, Postgres and Redis, against the model alone and other ways.

Same weights and files for every way, in the same run and in turns. Our rate counts from the submission of the job
until its last vector is committed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import baselines, limits
from benchmarks.common import CORES, REPOSITORY, Deployment, Table, import_catalogue, progress, write_catalogue
from benchmarks.goals import NO_GOAL, at_least
from benchmarks.limits import Limit
from benchmarks.machine import kept
from benchmarks.refresh_pictures import make_pictures

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

LITE0 = "EfficientNet-Lite0"
SWIN = "swin_base_patch4_window7_224"
OURS = "shopvision, through Celery"
LIMIT = "model only, best setting"
HUGGING_FACE, DATA_LOADER = "Hugging Face pipeline as documented", "timm + DataLoader, float32"
REPETITIONS = 2


@dataclass(frozen=True)
class Case:
    """What is embedded with what.

    Attributes:
        pictures: how many; several chunks for every process of the worker.
        goals: way -> how many times its rate ours is to be at least.
        settings: in which the model alone is tried.
    """

    model: str
    pictures: int
    large: bool
    goals: Mapping[str, float]
    settings: Sequence[limits.Setting] = field(default_factory=lambda: limits.settings(quick=False))
    ways: tuple[str, ...] = (HUGGING_FACE, DATA_LOADER)

    @property
    def form(self) -> str:
        """Of the pictures."""
        return "large JPEGs" if self.large else "224 px JPEGs"


CASE = Case(LITE0, 2000, large=False, goals={LIMIT: 0.75, HUGGING_FACE: 5, DATA_LOADER: 6})
QUICK_CASE = Case(LITE0, 256, large=False, goals=CASE.goals, settings=limits.settings(quick=True))


def run(*, quick: bool) -> list[Table]:
    """The default model on small pictures."""
    return tables_of(QUICK_CASE, 1, quick=True) if quick else tables_of(CASE, REPETITIONS)


def tables_of(case: Case, repetitions: int, *, quick: bool = False) -> list[Table]:
    """Every way of a case, and the model alone in every setting."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, refreshed(case, Path(name)) as shop:
        found = limits.limits_of(shop.folder, case.settings, quick=quick)
        best = max(found, key=lambda limit: limit.rate)
        rates = _in_turns(case, shop, best, repetitions, quick=quick)
    ours = statistics.median(rates.steady[OURS])
    rows = []
    for way, several in rates.steady.items():
        rate = statistics.median(several)
        row = {
            "model": case.model, "pictures": f"{case.pictures:,} {case.form}",
            "way": f"{way}: {best}" if way == LIMIT else way, "steady": rate,
            "to index": _median(rates.to_index.get(way)), "whole process": _median(rates.whole.get(way)),
            "ratio": ours / rate,
        }  # fmt: skip
        rows.append(row | (at_least(case.goals[way], ours / rate) if way in case.goals else NO_GOAL))
    return [
        Table(
            "Embedding refresh, end to end",
            "Images per second, medians of interleaved repetitions. *steady*: ours from submission to the last commit "
            "by a worker that is up, what it compiles ahead of time being there; the others after their first tenth. "
            "*to index*: with publishing. *whole process*: process start and model loading included. *ratio*: our "
            "steady rate by this one, which the *goal* is about.",
            rows,
        ),
        Table(
            "The model alone",
            f"{case.model}, images per second on ready tensors, by setting; with the memory settings of a worker, in "
            "bfloat16 where the processor has it.",
            [
                {"processes": limit.processes, "way": limit.setting.way, "batch": limit.setting.batch_size,
                 "images/s": limit.rate}
                for limit in found
            ],
        ),
    ]  # fmt: skip


def _median(values: Sequence[float] | None) -> float | None:
    return statistics.median(values) if values else None


@dataclass(frozen=True)
class _Rates:
    """Way -> pictures per second of each repetition."""

    steady: dict[str, list[float]] = field(default_factory=dict)
    whole: dict[str, list[float]] = field(default_factory=dict)
    to_index: dict[str, list[float]] = field(default_factory=dict)


def _in_turns(case: Case, shop: Refresh, best: Limit, repetitions: int, *, quick: bool) -> _Rates:
    rates = _Rates()
    for _ in range(repetitions):
        for way in case.ways:
            rate = baselines.measure(way, shop.paths, shop.folder)
            rates.steady.setdefault(way, []).append(rate.steady)
            rates.whole.setdefault(way, []).append(rate.whole)
            progress(f"{case.form}, {way}: {rate.steady:.1f}")
        (again,) = limits.limits_of(shop.folder, [best.setting], quick=quick, counts=[best.processes])
        rates.steady.setdefault(LIMIT, []).append(again.rate)
        times = shop.deployment.run("refresh_embeddings", scope="all")
        rates.steady.setdefault(OURS, []).append(times.items / times.to_commit)
        rates.to_index.setdefault(OURS, []).append(times.items / times.to_end)
        progress(f"{case.form}, {OURS}: {rates.steady[OURS][-1]:.1f}")
    return rates


@dataclass(frozen=True)
class Refresh:
    """A deployment whose workers are up and warm, its pictures, and the folder of its model."""

    deployment: Deployment
    paths: list[Path]
    folder: Path


@contextmanager
def refreshed(case: Case, scratch: Path) -> Iterator[Refresh]:
    """A catalogue in a deployment of its own."""
    share_compiled(scratch)
    with Deployment(scratch).servers() as shop:
        paths = make_pictures(scratch / "pictures", case.pictures, large=case.large)
        import_catalogue(write_catalogue(scratch / "items.jsonl", paths, "picture"), scratch / "pictures")
        folder = local_copy(activate(case.model, scratch))
        warm()
        tune(folder)
        shop.start("cpu")
        shop.start("gpu")
        warm_up(shop, case.pictures)
        yield Refresh(shop, paths, folder)


def share_compiled(scratch: Path) -> None:
    """What is compiled and measured is made once for a machine; each use of a package is verified."""
    (scratch / "home").mkdir()
    for name in ("compiled", "tuning"):
        (kept() / name).mkdir(mode=0o700, exist_ok=True)
        (scratch / "home" / name).symlink_to(kept() / name)


def warm() -> None:
    """Compile before the night, as docs/operating.md says."""
    _before_the_night("warm")


def tune(folder: Path) -> None:
    """Measure a model before the night likewise, unless it, or all that it is made of, was measured on this machine."""
    from shopvision.encoders.tuning import TuningStore
    from shopvision.models.part import digests_in, part_of
    from shopvision.models.version_folder import read_card
    from shopvision.settings import get_settings

    card = read_card(folder)
    own = {part_of(card, "").digest}
    if not (digests_in(card) - own or own) <= {tuning.digest for tuning in TuningStore(get_settings().home).all()}:
        _before_the_night("tuning", card.spec, "--again")


def _before_the_night(*command: str) -> None:
    started = time.monotonic()
    shopvision = Path(sys.executable).with_name("shopvision")
    subprocess.run([shopvision, "models", *command], check=True, cwd=REPOSITORY)
    progress(f"shopvision models {command[0]}: {time.monotonic() - started:.0f} s")


def warm_up(shop: Deployment, pictures: int) -> None:
    """A small job for every process of the worker, at once, so that each has loaded the model."""
    some = [f"picture-{number}" for number in range(min(64, pictures))]
    params = {"scope": "all", "item_ids": some, "publish": False}
    for job_id in [shop.submit("refresh_embeddings", **params) for _ in range(2 * CORES)]:
        shop.wait(job_id)


def activate(model: str, scratch: Path) -> ModelVersionRef:
    """EfficientNet-Lite0 with its pretrained weights, or a timm architecture with seeded ones."""
    from shopvision import models
    from shopvision.models import ensure_default_encoder

    if model == LITE0:
        return ensure_default_encoder()
    import timm
    import torch

    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model(model, num_classes=10), str(scratch / "model"), safe_serialization=True)
    return models.activate("catalogue_encoder", models.import_model(f"local-dir:{scratch / 'model'}", name=model).spec)


def local_copy(ref: ModelVersionRef) -> Path:
    from shopvision import models

    return models.local_copy(ref)
