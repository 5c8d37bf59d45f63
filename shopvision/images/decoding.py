"""From bytes to an upright RGB picture on white, whatever the bytes are."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from shopvision.errors import ItemError
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
SNIFFED_BYTES = 2048

# Registers every format: `formats=` below fails for one that is not loaded yet.
Image.init()
warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata nobody asked for
# Our own limits are checked on the header, before any pixel is decoded; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # pictures are decoded side by side as it is


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may be at most, in pixels."""

    max_pixels: int
    max_side: int

    @classmethod
    def of(cls, settings: Settings) -> PictureLimits:
        """The limits of these settings."""
        return cls(settings.image_max_pixels, settings.image_max_side)


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture, perhaps at reduced scale.

    Attributes:
        image: its pixels.
        size: (width, height) at full scale.
        box: (left, top, right, bottom) of the picture in ``image``. Where a side is no multiple of the scale, the last
            pixels lie partly outside; taking them for whole would shift everything by up to half a pixel.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float]


def decode(data: bytes, *, target: tuple[int, int] | None = None, limits: PictureLimits | None = None) -> Image.Image:
    """Decode a picture's first frame: upright, RGB, transparency on white, 16 bits scaled to 8.

    Embedded colour profiles are not applied: encoders are trained on pictures read in the same way.

    Args:
        data: an encoded picture; the content decides, not any file name.
        target: (height, width) in pixels that the caller will shrink to. JPEGs are then decoded at the smallest of
            the scales 1, 1/2, 1/4 and 1/8 that is not below it.
        limits: by default those of the settings.

    Raises:
        ItemError: with one of the codes in ``shopvision.images.reasons``.
    """
    return decode_near(data, target, limits).image


def decode_near(data: bytes, target: tuple[int, int] | None, limits: PictureLimits | None) -> Decoded:
    """Like ``decode``, and say where in the pixels the picture lies."""
    limits = limits or PictureLimits.of(get_settings())
    if not data:
        raise ItemError("empty", "The picture has no bytes.")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image, limits)
        if image.format == "PNG":
            # Decoding a damaged PNG gives streaks and no error; its checksums tell.
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        size, content = image.size, (float(image.width), float(image.height))
        orientation = _orientation(image)
        if target is not None:
            height, width = target if orientation < 5 else target[::-1]
            drafted = image.draft(None, (width, height))
            content = content if drafted is None else (drafted[1][2], drafted[1][3])
        image.load()
        box = _upright_box(image.size, content, orientation)
        if orientation in TRANSPOSITIONS:
            image = image.transpose(TRANSPOSITIONS[orientation])
        return Decoded(_rgb_on_white(image), size if orientation < 5 else size[::-1], box)
    except (ItemError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _not_a_picture(data) from None
    except Exception as error:  # noqa: BLE001 - damaged bytes make decoders raise anything; it concerns this picture only
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        cut = isinstance(error, EOFError) or "truncated" in reason.lower() or _is_cut(data)
        raise ItemError("truncated" if cut else "corrupt", f"The picture cannot be decoded: {reason}.") from None


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
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", layer.size, "white")
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit greys to 8 bits; a picture wants them scaled."""
    values = np.asarray(image).astype(np.float32)
    grey = np.rint(np.clip(values, 0, 65535) / 257).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey, "L").convert("RGB")


def _is_cut(data: bytes) -> bool:
    """Whether a picture's container announces more than there is; JPEG and BMP decoders say so themselves."""
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data[4:8] == b"ftyp":
        end = 0
        while end < len(data) and (size := int.from_bytes(data[end : end + 4], "big")) >= 8:
            end += size
        return end > len(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data[-12:]
    return data.startswith((b"GIF87a", b"GIF89a")) and not data.endswith(b";")


def _not_a_picture(data: bytes) -> ItemError:
    if _is_cut(data):
        return ItemError("truncated", "The picture ends too early.")
    head = data[:SNIFFED_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return ItemError("html", "This is a web page, not a picture.")
    if (
        head.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--"))
        and b"<svg" in data[: 16 * SNIFFED_BYTES].lower()
    ):
        return ItemError("svg", "This is an SVG drawing: export it as PNG or JPEG.")
    if b"<html" in head:
        return ItemError("html", "This is a web page, not a picture.")
    try:
        text = data[:SNIFFED_BYTES].decode("utf-8", errors="strict" if len(data) <= SNIFFED_BYTES else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character in "\r\n\t" for character in text):
        return ItemError("text", "This is text, not a picture.")
    return ItemError(
        "unsupported_format", "This is no JPEG, PNG, WebP, GIF, BMP or AVIF, or its first bytes are damaged."
    )
