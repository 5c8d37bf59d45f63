"""Pictures as a caller gives them: addresses, paths and arrays, all prepared in one way, and embedded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b, sha256
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shopvision.errors import ItemError, UserError
from shopvision.images.decoding import Decoded
from shopvision.images.door import FetchedPicture, PictureDoor
from shopvision.images.preprocessing import Preprocessing, fit
from shopvision.images.reader import PictureReader, PictureRequest, Reading, whole
from shopvision.images.transfer import check_length
from shopvision.settings import Settings, get_settings

if TYPE_CHECKING:
    from shopvision.images.pipeline import Encoder

Picture: TypeAlias = str | Path | NDArray[np.uint8]
"""A path, an address (``https://``, ``s3://``, ``file://``: the rules of the picture door apply), or an array
(height, width, 3), uint8, RGB."""


class OwnFilesDoor(PictureDoor):
    """A door that opens paths too: our caller may read the file anyway; allowed folders are for addresses."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._length_limits = settings

    def fetch(self, uri: str) -> FetchedPicture:
        """See ``PictureDoor``; ``uri`` may also be a path."""
        if "://" in uri:
            return super().fetch(uri)
        try:
            found = Path(uri).stat()
            if not S_ISREG(found.st_mode):  # a pipe may never end, a device neither
                raise ItemError("not_a_file", f"{uri} is not an ordinary file.")
            check_length(self._length_limits, found.st_size, uri)
            data = Path(uri).read_bytes()
        except OSError as error:
            code = {FileNotFoundError: "not_found", PermissionError: "forbidden"}
            raise ItemError(code.get(type(error), "unavailable"), f"{uri}: {error.strerror}.") from None
        except ValueError as error:
            raise ItemError("not_found", f"{uri!r} can be no path: {error}.") from None
        return FetchedPicture(data, sha256(data).digest(), "")


def embed(pictures: Sequence[Picture], encoder: Encoder, dimension: int) -> NDArray[np.float32]:
    """Vectors of pictures. All must be readable; equal ones get equal vectors.

    Args:
        pictures: n pictures.
        encoder: makes the vectors.
        dimension: of them.

    Returns:
        (n, dimension) float32 of unit length.

    Raises:
        UserError: an array is no picture.
        ItemError: a picture cannot be read, or has no vector (``bad_vector``); the message says which.
        TransientError: a source is away for the moment.
        JobError: the model cannot run.
    """
    vectors = np.empty((len(pictures), dimension), np.float32)
    first: dict[bytes, int] = {}
    prepared = enumerate(_prepared(pictures, encoder.preprocessing, 2 * encoder.batch_size))
    while batch := dict(islice(prepared, encoder.batch_size)):
        # The last bits of a vector depend on its place in the batch.
        same_as = {place: first.setdefault(blake2b(pixels.data).digest(), place) for place, pixels in batch.items()}
        new = [place for place, earlier in same_as.items() if place == earlier]
        if new:
            vectors[new] = encoder.encode(np.stack([batch[place] for place in new]))
        vectors[list(same_as)] = vectors[list(same_as.values())]
    # NaN compares false.
    for place in np.flatnonzero(~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 0.01)).tolist():
        with _naming(place, pictures[place]):
            raise ItemError("bad_vector", "The model gives this picture no finite vector.")
    return vectors


def _prepared(pictures: Sequence[Picture], preprocessing: Preprocessing, ahead: int) -> Iterator[NDArray[np.uint8]]:
    """Pixels in the order of the pictures."""
    for place, picture in enumerate(pictures):
        if isinstance(picture, np.ndarray):
            with _naming(place, picture):
                _require_picture(picture)
    requests = [
        PictureRequest(place, str(picture))
        for place, picture in enumerate(pictures)
        if not isinstance(picture, np.ndarray)
    ]
    with OwnFilesDoor(get_settings()) as door:
        prepare = partial(fit, preprocessing=preprocessing)
        reader = PictureReader(door, prepare, target=preprocessing.resized, ahead=ahead)
        with reader.read(requests, in_order=True) as reading:
            for place, picture in enumerate(pictures):
                with _naming(place, picture):
                    pixels = prepare(_as_decoded(picture)) if isinstance(picture, np.ndarray) else _next(reading)
                yield pixels


def _next(reading: Reading[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    outcome = reading.take()
    if outcome is None:
        raise AssertionError("one outcome comes for each request")
    pixels = whole(outcome)
    if isinstance(pixels, ItemError):
        raise pixels
    return pixels


def _require_picture(array: NDArray[np.uint8]) -> None:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise UserError(f"An array must be uint8 (height, width, 3), RGB, not {array.dtype} {array.shape}.")


def _as_decoded(array: NDArray[np.uint8]) -> Decoded:
    image = Image.fromarray(array)
    return Decoded(image, image.size, (0.0, 0.0, *image.size))


@contextmanager
def _naming(place: int, picture: Picture) -> Iterator[None]:
    """Errors of one picture say which one it is."""
    try:
        yield
    except (ItemError, UserError) as error:
        text = str(error)
        address = "" if isinstance(picture, np.ndarray) or str(picture) in text else f" ({picture})"
        message = f"Picture {place}{address}: {text}"
        raise (ItemError(error.code, message) if isinstance(error, ItemError) else UserError(message)) from None
