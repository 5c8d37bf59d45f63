"""Every wrong and unusual input: the right pixels, or a reason code of its own."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from shopvision.errors import ItemError
from shopvision.images import PictureLimits, decode
from shopvision.images.preprocessing import Preprocessing, prepare
from shopvision.images.reasons import REASONS

LIMITS = PictureLimits(max_pixels=100_000_000, max_side=20_000)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode(data, limits=LIMITS)
    assert image.mode == "RGB"
    return np.asarray(image)


def corners() -> Image.Image:
    """40 x 20: red, green / blue, white quarters."""
    image = Image.new("RGB", (40, 20), WHITE)
    image.paste(RED, (0, 0, 20, 10))
    image.paste(GREEN, (20, 0, 40, 10))
    image.paste(BLUE, (0, 10, 20, 20))
    return image


def photo(width: int = 64, height: int = 48) -> Image.Image:
    noise = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png_header_claiming(width: int, height: int) -> bytes:
    """A well-formed PNG of a few bytes that says it is huge."""

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 100)) + part(b"IEND", b"")


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 20]) + data[middle + 20 :]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "empty"),
    "truncated JPEG": (lambda: encoded(photo(), "JPEG")[:-900], "truncated"),
    "truncated PNG": (lambda: encoded(photo())[:-3000], "truncated"),
    "truncated WebP": (lambda: encoded(photo(), "WEBP")[:-300], "corrupt"),
    "HTML error page": (lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "html"),
    "HTML after blanks and a BOM": (lambda: b"\xef\xbb\xbf\n  <HTML><title>Error</title>", "html"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "svg"),
    "SVG after an XML declaration": (lambda: b'<?xml version="1.0"?><!-- x --><svg width="9"/>', "svg"),
    "text": ("상품 이미지가 없습니다\n图片不存在".encode, "text"),
    "random bytes": (lambda: np.random.default_rng(1).bytes(5000), "unsupported_format"),
    "PDF": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "unsupported_format"),
    "TIFF": (lambda: encoded(photo(), "TIFF"), "unsupported_format"),
    "decompression bomb": (lambda: png_header_claiming(19_000, 19_000), "too_many_pixels"),
    "50,000 x 1": (lambda: encoded(Image.new("L", (50_000, 1))), "too_long_side"),
    "PNG with damaged pixel data": (
        lambda: damaged(encoded(corners().resize((300, 200), Image.Resampling.BICUBIC))),
        "corrupt",
    ),
}


@pytest.mark.parametrize(("make", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_picture_has_its_own_reason(make: Callable[[], bytes], code: str) -> None:
    with pytest.raises(ItemError) as refused:
        decode(make(), limits=LIMITS)
    assert refused.value.code == code
    assert code in REASONS
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("length", [0, 1, 2, 10, 100, 300, 700, 1500])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_picture_cut_anywhere_is_an_item_error(form: str, length: int) -> None:
    data = encoded(photo(), form)
    with pytest.raises(ItemError) as refused:
        decode(data[:length], limits=LIMITS)
    assert refused.value.code in REASONS


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_come_out_upright(orientation: int) -> None:
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = corners() if undo is None else corners().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form, options in (("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0})):
        shown = pixels(encoded(stored, form, exif=exif, **options)).astype(int)
        assert shown.shape == (20, 40, 3)
        for (y, x), colour in {(5, 10): RED, (5, 30): GREEN, (15, 10): BLUE, (15, 30): WHITE}.items():
            assert np.abs(shown[y, x] - colour).max() < 12


def test_a_broken_exif_block_does_not_matter() -> None:
    data = encoded(corners(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff rubbish")
    assert pixels(data).shape == (20, 40, 3)


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    # half-transparent black on white: 255 * (1 - 128/255) = 127
    assert pixels(encoded(image)).tolist() == [[[255, 255, 255], [255, 0, 0], [127, 127, 127]]]
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (50, 255))
    assert pixels(encoded(grey)).tolist() == [[[255, 255, 255], [50, 50, 50]]]


def test_palettes_with_and_without_alpha() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert pixels(encoded(image)).tolist() == [[[0, 0, 0], [255, 0, 0], [0, 0, 255]]]
    for transparency in (0, b"\x00\xff\xff"):
        assert pixels(encoded(image, transparency=transparency)).tolist() == [
            [[255, 255, 255], [255, 0, 0], [0, 0, 255]]
        ]
    half = encoded(image, transparency=b"\xff\x80\xff")
    assert pixels(half)[0, 1].tolist() == [255, 127, 127]  # red, half transparent, on white


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_transparent_colour_key_lies_on_white(mode: str) -> None:
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), 90 if mode == "L" else (90, 90, 90))
    key = 0 if mode == "L" else (0, 0, 0)
    assert pixels(encoded(image, transparency=key)).tolist() == [[[255, 255, 255], [90, 90, 90]]]


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_one_bit_pictures() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_is_not_inverted() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow ink: red
    assert np.abs(pixels(encoded(cmyk, "JPEG", quality=95)).astype(int) - RED).max() < 12
    paper = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert pixels(encoded(paper, "JPEG", quality=95)).min() > 245


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    data = encoded(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )
    assert pixels(data)[4, 4].tolist() == list(RED)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(corners()))
    assert pixels(path.read_bytes())[0, 0].tolist() == list(RED)


def test_an_embedded_profile_and_a_text_block_do_no_harm() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    note = PngImagePlugin.PngInfo()
    note.add_text("comment", "x" * 10_000, zip=True)
    assert pixels(encoded(corners(), icc_profile=profile, pnginfo=note))[0, 0].tolist() == list(RED)


def test_large_jpegs_are_decoded_at_reduced_scale() -> None:
    data = encoded(photo(1600, 1200), "JPEG")
    assert decode(data, target=(256, 256), limits=LIMITS).size == (400, 300)  # 1/8 would fall below 256
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = encoded(photo(1600, 1200), "JPEG", exif=exif)
    assert decode(rotated, target=(500, 300), limits=LIMITS).size == (600, 800)


LITE0 = Preprocessing(size=(224, 224), crop_fraction=0.875, interpolation="bicubic")


@pytest.mark.parametrize("size", [(224, 224), (300, 200), (200, 301), (640, 480), (257, 1000), (33, 40)])
def test_preparing_gives_exactly_timms_pixels(size: tuple[int, int]) -> None:
    from timm.data import create_transform

    image = photo(*size)
    timm_transform = create_transform(
        input_size=224, interpolation="bicubic", crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1)
    )
    expected = np.rint(timm_transform(image).numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
    np.testing.assert_array_equal(prepare(encoded(image), LITE0, LIMITS), expected)


def test_squash_ignores_the_aspect_ratio() -> None:
    squash = Preprocessing(size=(10, 30), resize_mode="squash", interpolation="bilinear")
    prepared = prepare(encoded(corners()), squash, LIMITS)
    assert prepared.shape == (10, 30, 3)
    assert prepared[2, 7].tolist() == list(RED)
    assert prepared[8, 25].tolist() == list(WHITE)


def test_real_banners_have_no_black_or_streaked_ground(data: Path) -> None:
    transparent = 0
    for path in sorted((data / "magento_luma" / "banners").glob("*.png")):
        with Image.open(path) as original:
            alpha = np.asarray(original.convert("RGBA"))[:, :, 3]
        shown = pixels(path.read_bytes())
        if (alpha == 0).any():
            transparent += 1
            assert (shown[alpha == 0] == 255).all()
    assert transparent == 3
