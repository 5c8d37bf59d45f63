"""Other ways from photos to vectors of their garments: the bare models, and picture by picture as documented.

Each way runs in processes of its own: ``python -m benchmarks.fashion_baselines WAY WORK LIST_OF_FILES``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.baselines import Rate, card_and_network, paths_in, print_marks, rate_of
from benchmarks.common import CORES

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from shopvision.images import Box

ENCODED_AT_ONCE = 32
SAME_GARMENT = 0.7  # IoU, of boxes of any class, as the reference does


@dataclass(frozen=True)
class Work:
    """What is done with every photo.

    Attributes:
        detector: folder of a model version.
        encoder: likewise.
        score: boxes above it are garments.
        crops: that are encoded of a photo, on average, where a way does not find them itself.
    """

    detector: str
    encoder: str
    score: float
    crops: float


def bare_models(paths: Sequence[Path], work: Work) -> Iterator[int]:
    """Ready tensors through both networks, compiled with constant weights, in the dtypes that they serve in."""
    import torch

    from benchmarks.fashion_models import prepared
    from shopvision.encoders._fast.folding import fold_batch_norm
    from shopvision.encoders.devices import best_precision
    from shopvision.fashion.detection.predict import load_detector

    detector = load_detector(Path(work.detector), device="cpu")
    photo = prepared(detector, paths[0]).inputs
    at_once = detector.batch_size
    network = detector_network(work)
    network.accelerate()
    inputs = network.core_inputs({name: torch.cat([values] * at_once) for name, values in photo.items()})
    find = _compiled(network.core(), inputs)
    card, encoder = card_and_network(Path(work.encoder))
    height, width = card.preprocessing.size
    dtype = best_precision(torch.device("cpu"))
    fold_batch_norm(encoder, torch.rand(1, 3, height, width))
    crops = torch.rand(ENCODED_AT_ONCE, 3, height, width).to(dtype).to(memory_format=torch.channels_last)
    encode = _compiled(encoder.to(dtype).to(memory_format=torch.channels_last), [crops])
    waiting = 0.0
    for _ in range(0, len(paths), at_once):
        find(inputs)
        waiting += at_once * work.crops
        while waiting >= ENCODED_AT_ONCE:
            encode([crops])
            waiting -= ENCODED_AT_ONCE
        yield at_once


def detector_network(work: Work) -> Any:
    """The detector without what stands around it here."""
    from shopvision.fashion.detection.card import load_network

    return load_network(Path(work.detector))[0]


def _compiled(network: nn.Module, example: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], Any]:
    import torch

    compiled = torch.compile(network, dynamic=False, options={"freezing": True})

    def run(inputs: Sequence[Tensor]) -> Any:
        with torch.inference_mode():
            return compiled(*inputs)

    for _ in range(2):  # compiles, and warms up
        run(example)
    return run


def picture_by_picture(paths: Sequence[Path], work: Work) -> Iterator[int]:
    """Detector, then crops, then encoder for each photo alone, float32, as the reference's notebooks and the
    documentation of the libraries show it."""
    import torch
    from PIL import Image
    from torchvision import transforms

    card, encoder = card_and_network(Path(work.encoder))
    wanted = card.preprocessing
    prepare = transforms.Compose(
        [transforms.Resize(wanted.size), transforms.ToTensor(), transforms.Normalize(wanted.mean, wanted.std)]
    )
    find = _as_documented(detector_network(work), work.score)
    with torch.inference_mode():
        for path in paths:
            image = Image.open(path).convert("RGB")
            crops = [image.crop(box) for box in find(image)] or [image]
            torch.nn.functional.normalize(encoder(torch.stack([prepare(crop) for crop in crops])), dim=1)
            yield 1


def _as_documented(network: Any, score: float) -> Callable[[Image.Image], list[Box]]:
    """Photo -> boxes of its garments."""
    import torch
    from torchvision.ops import nms
    from torchvision.transforms.functional import to_tensor

    from shopvision.fashion.detection.pyramid_network import PyramidNetwork

    def torchvision_way(image: Image.Image) -> Any:
        scale = network.arguments.longest_side / max(image.size)
        smaller = image.resize((round(image.width * scale), round(image.height * scale)))
        (found,) = network.fcos([to_tensor(smaller)])
        good = found["scores"] > score
        return found["boxes"][good] / scale, found["scores"][good]

    def transformers_way(image: Image.Image) -> Any:
        inputs = network.processor(images=[image], return_tensors="pt")
        outputs = network.network(**inputs)
        size = torch.tensor([[image.height, image.width]])
        (found,) = network.processor.post_process_object_detection(outputs, threshold=score, target_sizes=size)
        return found["boxes"], found["scores"]

    way = torchvision_way if isinstance(network, PyramidNetwork) else transformers_way

    def find(image: Image.Image) -> list[Box]:
        boxes, scores = way(image)
        kept = boxes[nms(boxes, scores, SAME_GARMENT)].round().clamp(min=0).tolist()
        return [(left, top, right, bottom) for left, top, right, bottom in kept if left < right and top < bottom]

    return find


ONE_BY_ONE = "picture by picture, as documented"
# way -> (function, processes, share of the photos)
WAYS: dict[str, tuple[Callable[[Sequence[Path], Work], Iterator[int]], int, float]] = {
    "both models only, compiled, one process per core": (bare_models, CORES, 0.5),
    ONE_BY_ONE: (picture_by_picture, 1, 0.2),
}


def measure(way: str, paths: Sequence[Path], work: Work) -> Rate:
    """Run one way; slow ways take the first few photos only."""
    _, processes, share = WAYS[way]
    some = paths[: max(16 * processes, round(len(paths) * share))]
    module, models = "benchmarks.fashion_baselines", json.dumps(asdict(work))
    return rate_of(module, way, models, some, processes=processes, tuned=way != ONE_BY_ONE)


def _child(way: str, models: str, listing: str) -> None:
    import torch

    function, processes, _ = WAYS[way]
    torch.set_num_threads(max(1, CORES // processes))
    print_marks(function(paths_in(listing), Work(**json.loads(models))))


if __name__ == "__main__":
    _child(*sys.argv[1:])
