"""Pictures to unit vectors with a timm network, as fast as the device allows.

On any device: BatchNorm folded, channels_last, half precision where the hardware computes in it, normalisation on the
device, inference mode, and compiled where a package of the network is there (``shopvision.encoders.compiled``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from shopvision.encoders._fast import accelerate_image_network
from shopvision.encoders.compiled.inputs import Free, InputSpec
from shopvision.encoders.compiled.module import CompiledModule, CompileMode
from shopvision.encoders.devices import choose_device, choose_dtype
from shopvision.encoders.fitting_batches import FittingBatches
from shopvision.encoders.image_networks import KIND, load_network
from shopvision.encoders.tuning import tuning_of
from shopvision.encoders.tuning.picture_trial import made_pictures, picture_trial
from shopvision.errors import JobError, UserError
from shopvision.images.given import Picture, embed
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.part import part_of
from shopvision.models.version_folder import read_card
from shopvision.settings import TuningChoice, Way

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.encoders.tuning.part import TunablePart
    from shopvision.encoders.tuning.record import Setting
    from shopvision.models.kinds import Precision
    from shopvision.models.part import ModelPart

BATCH_SIZE = {"cpu": 32, "cuda": 256}
# What is measured beside: as a multiple of that.
_OTHER_SIZES = (0.5, 0.25, 2)
PART = "images"
MOST_COMPILED = 1024


class _PixelsToVectors(nn.Module):
    """(n, H, W, 3) uint8 -> (n, d) float32; a picture without a finite direction keeps NaN or zeros."""

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, dtype: torch.dtype, *, unit_length: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.dtype, self.unit_length = dtype, unit_length
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in (preprocessing.mean, preprocessing.std))
        width = preprocessing.size[1]
        # One row of pixels long: arithmetic along the last axis of 3 channels would run unvectorised.
        self.register_buffer("scale", (1.0 / (255.0 * std)).repeat(width))
        self.register_buffer("shift", (-mean / std).repeat(width))

    def forward(self, pixels: Tensor) -> Tensor:
        count, height, width, channels = pixels.shape
        rows = pixels.view(count, height, width * channels).to(torch.float32)
        rows = rows.mul_(self.scale).add_(self.shift).to(self.dtype)  # type: ignore[arg-type] # buffers are tensors
        # A view: pictures lie in memory as channels_last wants them.
        images = rows.view(count, height, width, channels).permute(0, 3, 1, 2)
        vectors: Tensor = self.network(images).float()
        return nn.functional.normalize(vectors, dim=1) if self.unit_length else vectors


class ImageEncoder:
    """A network with its preprocessing, on one device. Threads take turns.

    ``encoder(["a.jpg", "https://shop.example/b.jpg"])`` gives a vector for each picture.

    Attributes:
        part: which network of which model version it is; None of one that is of none.
        unit: what ``batch_size`` counts.
        dimension: length of the vectors.
        preprocessing: how pictures must be prepared before ``encode``.
        device: where the network runs.
        dtype: what it computes in.
        batch_size: how many pictures at once are fast on this device, as far as that was measured.
        decoding_threads: how many pictures should be decoded at the same time beside it; None where nobody knows.
        network: (n, H, W, 3) uint8 on the device to (n, dimension) float32, compiled or not.
    """

    unit = "pictures"
    batches_at_once = 1

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        dimension: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        compile_mode: CompileMode = "auto",
        unit_length: bool = True,
        part: ModelPart | None = None,
    ) -> None:
        """Take over ``network`` (float32, CPU, evaluation mode) and prepare it for ``device``.

        Args:
            network: see above.
            preprocessing: how its pictures are prepared.
            dimension: length of its vectors.
            device: where it will run.
            dtype: what it will compute in.
            compile_mode: see ``load_image_encoder``.
            unit_length: false leaves vectors as long as the network makes them, as a layer on top may want them.
            part: which network of which model version this is: what was measured of it on this machine is used.
        """
        self.dimension = dimension
        self.preprocessing = preprocessing
        self.device = device
        self.dtype = dtype
        self.part = part
        chosen = tuning_of(part, threads=torch.get_num_threads(), device=str(device))
        self.use(chosen)
        if compile_mode == "auto" and chosen.way == "eager":
            compile_mode = "never"
        accelerate_image_network(network, preprocessing.size)
        network.requires_grad_(requires_grad=False).to(device, dtype)
        _use_channels_last(network)
        module = _PixelsToVectors(network, preprocessing, dtype, unit_length=unit_length).to(device).eval()
        self.network = CompiledModule(
            module, _inputs(preprocessing), part="image encoder", device=device, dtype=dtype, mode=compile_mode
        )
        self._batches = FittingBatches(device)
        self._turn = threading.Lock()

    @property
    def compiled_modules(self) -> tuple[CompiledModule, ...]:
        """What of it may run compiled."""
        return (self.network,)

    @property
    def precision(self) -> str:
        """What the network computes in: ``float32``, ``bfloat16``, ``float16``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """See ``TunablePart``."""
        usual = BATCH_SIZE.get(self.device.type, 32)
        return (usual, *(int(usual * factor) for factor in _OTHER_SIZES))

    @property
    def ways(self) -> tuple[Way, ...]:
        """See ``TunablePart``."""
        return ("eager", "compiled") if self.network.way == "compiled" else ("eager",)

    @property
    def tunable_parts(self) -> tuple[TunablePart, ...]:
        """See ``Tunable``."""
        return (self,)

    def trial(self, setting: Setting, work: int) -> Callable[[], None]:
        """See ``TunablePart``."""
        network = self.network if setting.way == "compiled" else self.network.module

        def run(batch: NDArray[np.uint8]) -> None:
            with self._turn:
                self._run(torch.from_numpy(batch), network)

        return picture_trial(run, self.preprocessing, setting, work)

    def vectors(self, count: int) -> NDArray[np.float32]:
        """See ``TunablePart``."""
        return self.encode(made_pictures(count, self.preprocessing))

    def use(self, chosen: TuningChoice) -> None:
        """See ``TunablePart``."""
        self.batch_size = chosen.batch_size or self.batch_sizes[0]
        self.decoding_threads = chosen.decoding_threads

    def __call__(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Vectors of pictures, read, decoded and prepared as the model wants them.

        Args:
            pictures: n paths, addresses (``https://``, ``s3://``, ``file://``: the rules of the picture door apply) or
                uint8 arrays (height, width, 3), RGB.

        Returns:
            (n, dimension) float32 of unit length.

        Raises:
            UserError: an array is no picture.
            ItemError: a picture cannot be read or has no vector; the message says which.
            JobError: see ``encode``.
        """
        return embed(pictures, self, self.dimension)

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors of prepared pictures.

        A batch that does not fit into memory is halved, and so are all later ones.

        Args:
            batch: (n, H, W, 3) uint8, C-contiguous, from ``shopvision.images.preprocessing.prepare``.

        Returns:
            (n, dimension) float32 of unit length. A row that is not finite, or zero, is a picture the network cannot
            place.

        Raises:
            JobError: wrong size or dtype, or not even one picture fits into memory.
        """
        if batch.dtype != np.uint8 or batch.shape[1:] != (*self.preprocessing.size, 3):
            raise JobError(
                f"The encoder wants uint8 pictures of {self.preprocessing.size}, not {batch.dtype} {batch.shape[1:]}."
            )
        with self._turn:
            return self._encode(batch)

    def _encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = np.empty((len(batch), self.dimension), np.float32)

        def compute(start: int, stop: int) -> None:
            vectors[start:stop] = self._run(torch.from_numpy(batch[start:stop]), self.network)

        self._batches.run(len(batch), compute)
        return vectors

    @torch.inference_mode()
    def _run(self, pixels: Tensor, network: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        vectors: NDArray[np.float32] = network(pixels).cpu().numpy()
        return vectors


def _inputs(preprocessing: Preprocessing) -> tuple[InputSpec, ...]:
    """Prepared pictures, as many as there are: a package for every size of batch but one picture alone."""
    return (InputSpec("uint8", (Free("batch", 2, MOST_COMPILED), *preprocessing.size, 3)),)


def _use_channels_last(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def load_image_encoder(
    folder: Path, *, device: str | None = None, precision: Precision = "auto", compile_mode: CompileMode = "auto"
) -> ImageEncoder:
    """The encoder of a model version.

    Args:
        folder: from ``shopvision.models.local_copy``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
        precision: ``auto`` takes the fastest that the device computes in.
        compile_mode: ``auto`` takes a compiled package where there is one; see ``CompiledModule``.

    Raises:
        UserError: the card is of another kind, or the device does not exist.
        JobError: the weights do not fit the architecture exactly.
    """
    card = read_card(folder, KIND)
    if card.preprocessing is None or card.dimension is None:
        raise UserError(f"{card.spec} has no preprocessing or no dimension in its card: write the card anew.")
    place, part = choose_device(device), part_of(card, PART)
    network = load_network(folder, card)
    return ImageEncoder(
        network,
        card.preprocessing,
        card.dimension,
        device=place,
        dtype=choose_dtype(precision, place, part),
        compile_mode=compile_mode,
        part=part,
    )
