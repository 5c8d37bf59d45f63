"""Pictures to regions, with any detector.

Pictures of one shape go through the network together, and no other ones: padding would be looked at by networks that
know no mask, and a picture's regions would depend on who its neighbours are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shopvision.encoders.devices import choose_device
from shopvision.encoders.fitting_batches import FittingBatches
from shopvision.encoders.tuning import tuning_of
from shopvision.errors import ItemError
from shopvision.fashion.detection.card import load_network
from shopvision.fashion.detection.compiled_cores import CompiledCores
from shopvision.fashion.detection.network import DetectionNetwork, Inputs
from shopvision.fashion.detection.regions import Boxes, Region, RegionRules, choose_regions
from shopvision.fashion.detection.tunable import TunableDetector
from shopvision.images import Box, Decoded
from shopvision.models.part import part_of

if TYPE_CHECKING:
    from shopvision.encoders.compiled.module import CompiledModule, CompileMode
    from shopvision.models.kinds import Precision
    from shopvision.models.part import ModelPart

BATCH_SIZE = {"cpu": 4, "cuda": 32}


@dataclass(frozen=True, slots=True)
class PreparedPicture:
    """A picture as a detector reads it.

    Attributes:
        inputs: of this picture alone.
        size: (width, height) of the picture at full scale, in pixels.
        pixels: (width, height) of what was decoded.
        box: where in these pixels the picture lies.
    """

    inputs: Inputs
    size: tuple[int, int]
    pixels: tuple[int, int]
    box: Box

    def at_full_scale(self, found: Boxes) -> Boxes:
        """Boxes in shares of what was decoded -> in pixels of the picture at full scale."""
        left, top, right, bottom = self.box
        scale = torch.tensor([*self.pixels, *self.pixels], dtype=torch.float64)
        start = torch.tensor([left, top, left, top], dtype=torch.float64)
        step = torch.tensor([self.size[0] / (right - left), self.size[1] / (bottom - top)] * 2, dtype=torch.float64)
        return Boxes(((found.boxes.double() * scale - start) * step).float(), found.labels, found.scores)


class Detector:
    """A detector on one device. Threads take turns.

    Attributes:
        labels: the classes that it knows.
        target: (height, width) to decode pictures for.
        rules: which boxes become regions, where the caller does not say.
        batch_size: pictures at once that are fast on this device, as far as that was measured.
    """

    def __init__(
        self,
        network: DetectionNetwork,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        rules: RegionRules | None = None,
        part: ModelPart | None = None,
        compile_mode: CompileMode = "auto",
    ) -> None:
        """Take over ``network`` (float32, CPU, evaluation mode), and make it faster.

        Args:
            network: see above.
            device: where it will run.
            dtype: what it will compute in.
            rules: which boxes become regions, where the caller does not say.
            part: which network of which model version this is: what was measured of it on this machine is used.
            compile_mode: see ``CompiledModule``.
        """
        network.accelerate()
        self.labels, self.target = network.labels, network.target
        self.rules = rules or RegionRules()
        self.tunable_parts = (TunableDetector(self, part, device=device, usual=BATCH_SIZE.get(device.type, 4)),)
        self._network = network.requires_grad_(requires_grad=False).to(device, dtype)
        self._device, self._dtype = device, dtype
        self._cores = CompiledCores(network, device=device, dtype=dtype, mode=compile_mode)
        self._turn = threading.Lock()
        self.tunable_parts[0].use(tuning_of(part, threads=torch.get_num_threads(), device=str(device)))

    def use_batches(self, size: int) -> None:
        """Look at so many pictures at once from now on, where they fit into memory."""
        self.batch_size = size
        self._batches = FittingBatches(self._device, size)

    @property
    def compiled_modules(self) -> tuple[CompiledModule, ...]:
        """What of it may run compiled."""
        return self._cores.modules

    def prepare(self, decoded: Decoded) -> PreparedPicture:
        """What ``detect`` reads of a picture. Safe in any thread.

        Raises:
            ItemError: ``unfit_shape``, where nothing of it would be left.
        """
        try:
            inputs = self._network.prepare(decoded.image)
        except (RuntimeError, ValueError, ZeroDivisionError):
            width, height = decoded.size
            raise ItemError(
                "unfit_shape", f"The picture is {width} x {height}, too long and narrow for this detector."
            ) from None
        return PreparedPicture(inputs, decoded.size, decoded.image.size, decoded.box)

    def detect(
        self, pictures: Sequence[PreparedPicture], rules: RegionRules | None = None
    ) -> list[tuple[Region, ...] | ItemError]:
        """The regions of each picture, the best first; or why there can be none.

        Args:
            pictures: from ``prepare``.
            rules: which boxes become regions; by default the detector's own.
        """
        rules = rules or self.rules
        chosen = zip(pictures, self.boxes(pictures, least=rules.score), strict=True)
        return [self._regions(picture, found, rules) for picture, found in chosen]

    def boxes(
        self, pictures: Sequence[PreparedPicture], *, least: float = 0.0, most: int | None = None
    ) -> list[Boxes | None]:
        """What the network gives for each picture, in its pixels; None where that is not finite.

        A batch that does not fit into memory is halved, and so are all later ones.

        Args:
            pictures: from ``prepare``.
            least: boxes with this score or less may be left out.
            most: pictures at once; by default ``batch_size``.

        Raises:
            JobError: not even one picture fits into memory.
        """
        batches = self._batches if most is None else FittingBatches(self._device, most)
        with self._turn:
            return find_boxes(
                self._network, pictures, device=self._device, dtype=self._dtype, batches=batches, least=least,
                core=self._cores,
            )  # fmt: skip

    def _regions(
        self, picture: PreparedPicture, found: Boxes | None, rules: RegionRules
    ) -> tuple[Region, ...] | ItemError:
        if found is None:
            return ItemError("bad_boxes", "The detector gives this picture no finite boxes.")
        chosen = choose_regions(found, picture.size, rules)
        rows = zip(chosen.boxes.tolist(), chosen.labels.tolist(), chosen.scores.tolist(), strict=True)
        return tuple(Region((box[0], box[1], box[2], box[3]), self.labels[label], score) for box, label, score in rows)


def shape_of(inputs: Inputs) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Equal for pictures that go through a network together."""
    return tuple((name, tuple(values.shape[1:])) for name, values in sorted(inputs.items()))


def find_boxes(
    network: DetectionNetwork,
    pictures: Sequence[PreparedPicture],
    *,
    device: torch.device,
    dtype: torch.dtype,
    batches: FittingBatches,
    least: float = 0.0,
    core: Callable[..., Any] | None = None,
) -> list[Boxes | None]:
    """What ``network`` gives for each picture: in pixels at full scale, on the CPU; None where that is not finite.

    Args:
        network: on ``device``, in evaluation mode.
        pictures: of any shapes.
        device: see above.
        dtype: that the network computes in.
        batches: how many pictures at once.
        least: boxes with this score or less may be left out.
        core: what runs in the place of the network's own.
    """
    core = network.core() if core is None else core
    results: list[Boxes | None] = [None] * len(pictures)

    def compute(group: Sequence[int], start: int, stop: int) -> None:
        places = group[start:stop]
        inputs = {
            name: torch.cat([pictures[place].inputs[name] for place in places]).to(device)
            for name in pictures[places[0]].inputs
        }
        typed = {name: values.to(dtype) if values.is_floating_point() else values for name, values in inputs.items()}
        found = network.find(typed, least=least, core=core)
        for place, one in zip(places, found, strict=True):
            results[place] = None if one is None else pictures[place].at_full_scale(one.to("cpu"))

    for group in by_shape([shape_of(picture.inputs) for picture in pictures], len(pictures)):
        batches.run(len(group), partial(compute, group))
    return results


def by_shape(shapes: Sequence[object], most: int) -> Iterator[list[int]]:
    """Places of what has one shape, at most so many at once."""
    groups: dict[object, list[int]] = {}
    for place, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(place)
    for places in groups.values():
        yield from (places[start : start + most] for start in range(0, len(places), most))


def load_detector(folder: Path, *, device: str | None = None, precision: Precision = "auto") -> Detector:
    """The detector of a model version.

    Args:
        folder: from ``shopvision.models.registry.local_copy``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
        precision: ``auto`` is float32: of a picture 1333 pixels wide, bfloat16 tells every fifth pixel apart.

    Raises:
        UserError: the card is of another kind or builds nothing, or there is no such device.
        JobError: the weights do not fit the architecture exactly.
    """
    network, card = load_network(folder)
    rules = RegionRules(score=card.thresholds.get("score", RegionRules().score))
    dtype = torch.float32 if precision == "auto" else getattr(torch, precision)
    return Detector(network, device=choose_device(device), dtype=dtype, rules=rules, part=part_of(card, "boxes"))
