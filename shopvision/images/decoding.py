"""From bytes to an upright RGB picture on white, whatever the bytes are."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError

from shopvision.errors import ItemError
from shopvision.images.memory import decoding_bytes, held
from shopvision.images.sniffing import is_cut, not_a_picture
from shopvision.settings import Settings, get_settings

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
EXIF_ORIENTATION = 0x0112
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
STRIP_PIXELS = 2**18

# Registers every format: `formats=` below fails for one that is not loaded yet.
Image.init()
warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata nobody asked for
# Our own limits are checked on the header, before any pixel is decoded; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None
# In blocks of the usual 16 MiB, glibc keeps a large picture's memory for the thread that freed it.
Image.core.set_block_size(2**26)  # type: ignore[attr-defined] # documented, not declared
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # pictures are decoded side by side as it is


Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may be at most, in pixels, and what all that a process decodes at once may take, in bytes."""

    max_pixels: int
    max_side: int
    memory_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> PictureLimits:
        """The limits of these settings."""
        return cls(settings.image_max_pixels, settings.image_max_side, settings.image_memory_bytes)


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture, or a part of one, perhaps at reduced scale.

    Attributes:
        image: its pixels.
        size: (width, height) at full scale.
        box: where the picture lies in ``image``. Where a side is no multiple of the scale, the last pixels lie partly
            outside; taking them for whole would shift everything by up to half a pixel.
    """

    image: Image.Image
    size: tuple[int, int]
    box: Box

    def region(self, box: Box) -> Decoded:
        """A part, cut at whole pixels of the full scale, outwards, so that filters see nothing of what is around it.

        Args:
            box: in pixels of the whole upright picture at full scale; what lies outside is left out.

        Raises:
            ItemError: ``empty_region``, where it holds no pixel.
        """
        within = self._within(box)
        left, top, right, bottom = within
        start_x, start_y, end_x, end_y = self._in_pixels(within)
        first_x, first_y = math.floor(start_x), math.floor(start_y)
        last_x, last_y = min(math.ceil(end_x), self.image.width), min(math.ceil(end_y), self.image.height)
        part = self.image.crop((first_x, first_y, last_x, last_y))
        inside = (start_x - first_x, start_y - first_y, min(end_x, last_x) - first_x, min(end_y, last_y) - first_y)
        return Decoded(part, (right - left, bottom - top), inside)

    def place(self, box: Box) -> Box:
        """Where in ``image`` the pixels of ``region(box)`` lie."""
        left, top, right, bottom = self._in_pixels(self._within(box))
        return left, top, min(right, self.image.width), min(bottom, self.image.height)

    def _within(self, box: Box) -> tuple[int, int, int, int]:
        within = _within(box, self.size)
        if within is None:
            raise ItemError(
                "empty_region", f"The region {box} holds nothing of the picture of {self.size[0]} x {self.size[1]}."
            )
        return within

    def _in_pixels(self, box: tuple[int, int, int, int]) -> Box:
        step_x, step_y = (self.box[2] - self.box[0]) / self.size[0], (self.box[3] - self.box[1]) / self.size[1]
        left, top = self.box[0] + box[0] * step_x, self.box[1] + box[1] * step_y
        return left, top, self.box[0] + box[2] * step_x, self.box[1] + box[3] * step_y


def _within(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The whole pixels of a picture of ``size`` that ``box`` touches; None where there are none."""
    if all(map(math.isfinite, box)):
        left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
        right, bottom = min(size[0], math.ceil(box[2])), min(size[1], math.ceil(box[3]))
        if left < right and top < bottom:
            return left, top, right, bottom
    return None


def decode(data: bytes, *, target: tuple[int, int] | None = None, limits: PictureLimits | None = None) -> Image.Image:
    """Like ``decoding``; the pixels stay with the caller and count no longer."""
    with decoding(data, target=target, limits=limits) as decoded:
        return decoded.image


@contextmanager
def decoding(
    data: bytes,
    *,
    target: tuple[int, int] | None = None,
    regions: Sequence[Box] = (),
    limits: PictureLimits | None = None,
) -> Iterator[Decoded]:
    """A picture's first frame: upright, RGB, transparency on white, 16 bits scaled to 8.

    Embedded colour profiles are not applied: encoders are trained on pictures read in the same way. The memory that the
    picture takes is taken out of the process's budget until the block ends.

    Args:
        data: an encoded picture; the content decides, not any file name.
        target: (height, width) in pixels that the caller will shrink the picture, or each region, to. JPEGs are then
            decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 that is not below it.
        regions: parts of the upright picture that will be cut out.
        limits: by default those of the settings.

    Raises:
        ItemError: with one of the codes in ``shopvision.images.reasons``.
    """
    limits = limits or PictureLimits.of(get_settings())
    with _reasons(data):
        image = _opened(data, limits)
        size = image.size
        # A PNG's may stand behind the pixels, which asking for it would decode; PNGs are not read at a scale.
        orientation = 1 if image.format == "PNG" else _orientation(image)
        content = (float(image.width), float(image.height))
        if target is not None:
            drafted = image.draft(None, _size_for(target, size, regions, orientation))
            content = content if drafted is None else (drafted[1][2], drafted[1][3])
        turned = orientation > 1 or image.format == "PNG"
        needed = decoding_bytes(image, data, size, turned=turned, cut=bool(regions))
    with held(needed, limits.memory_bytes):
        with _reasons(data):
            decoded = _upright(image, size, content)
        yield decoded


@contextmanager
def _reasons(data: bytes) -> Iterator[None]:
    try:
        yield
    except (ItemError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise not_a_picture(data) from None
    except Exception as error:  # noqa: BLE001 - damaged bytes make decoders raise anything; it concerns this picture only
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        cut = isinstance(error, EOFError) or "truncated" in reason.lower() or is_cut(data)
        raise ItemError("truncated" if cut else "corrupt", f"The picture cannot be decoded: {reason}.") from None


def _opened(data: bytes, limits: PictureLimits) -> ImageFile.ImageFile:
    """A picture whose header has been read and found to be within limits."""
    if not data:
        raise ItemError("empty", "The picture has no bytes.")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_size(image, limits)
    if image.format == "PNG":
        # Decoding a damaged PNG gives streaks and no error; its checksums tell.
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()
    return image


def _size_for(
    target: tuple[int, int], stored: tuple[int, int], regions: Sequence[Box], orientation: int
) -> tuple[int, int]:
    """(width, height) that the whole stored picture needs, so that every region has its ``target`` (height, width)."""
    size = stored if orientation < 5 else stored[::-1]
    height, width = target
    for left, top, right, bottom in filter(None, (_within(box, size) for box in regions)):
        width = max(width, math.ceil(target[1] * size[0] / (right - left)))
        height = max(height, math.ceil(target[0] * size[1] / (bottom - top)))
    return (width, height) if orientation < 5 else (height, width)


def _upright(image: Image.Image, size: tuple[int, int], content: tuple[float, float]) -> Decoded:
    """The picture as it is looked at; ``content`` (width, height) of its pixels are not beyond its edges."""
    image.load()
    orientation = _orientation(image)
    box = _upright_box(image.size, content, orientation)
    if orientation in TRANSPOSITIONS:
        image = image.transpose(TRANSPOSITIONS[orientation])
    return Decoded(_rgb_on_white(image), size if orientation < 5 else size[::-1], box)


def _check_size(image: Image.Image, limits: PictureLimits) -> None:
    width, height = image.size
    if max(width, height) > limits.max_side:
        raise ItemError(
            "too_long_side", f"The picture is {width} x {height}; a side may have {limits.max_side} pixels."
        )
    if width * height > limits.max_pixels:
        raise ItemError(
            "too_many_pixels", f"The picture is {width} x {height}; {limits.max_pixels:,} pixels are allowed."
        )


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block says nothing about the picture itself
        return 1
    return value if value in TRANSPOSITIONS else 1


def _upright_box(
    stored: tuple[int, int], content: tuple[float, float], orientation: int
) -> tuple[float, float, float, float]:
    """Where ``content`` (width, height), which starts at the top left of ``stored``, lies after turning it upright."""
    rest = stored[0] - content[0], stored[1] - content[1]
    if orientation >= 5:
        content, rest = content[::-1], rest[::-1]
    left = rest[0] if orientation in {2, 3, 6, 7} else 0.0
    top = rest[1] if orientation in {3, 4, 7, 8} else 0.0
    return left, top, left + content[0], top + content[1]


def _rgb_on_white(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I") and not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    ground = Image.new("RGB", image.size, "white")
    for top, strip in _strips(image):
        if image.mode.startswith("I"):
            ground.paste(_from_16_bits(strip), (0, top))
        else:
            layer = strip.convert("RGBA")
            ground.paste(layer, (0, top), layer.getchannel("A"))
    return ground


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(top, rows from there on): a whole picture would be there once more at each step of its conversion."""
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit greys to 8 bits; a picture wants them scaled."""
    values = np.asarray(image).astype(np.float32)
    grey = np.rint(np.clip(values, 0, 65535) / 257).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey, "L").convert("RGB")
