"""Every wrong and unusual input: the right pixels, or a reason code of its own."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
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

LIMITS = PictureLimits(max_pixels=100_000_000, max_side=20_000, memory_bytes=2**31)
LITE0 = Preprocessing(size=(224, 224), crop_fraction=0.875, interpolation="bicubic")
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


def soft_photo(width: int, height: int) -> Image.Image:
    """Colours that change over some thirty pixels, as in a photo of things."""
    return photo(width // 32, height // 32).resize((width, height), Image.Resampling.BICUBIC)


def stored_for(image: Image.Image, orientation: int) -> Image.Image:
    """What a camera held that way would have stored."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return image.transpose(undo[orientation]) if orientation > 1 else image


def png(width: int, height: int, bits: int, kind: int, row: bytes, transparency: bytes | None = None) -> bytes:
    """A PNG by hand: kinds 0 grey, 2 colour, 6 colour and alpha; one row of big-endian values, filtered by nothing."""

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    extra = b"" if transparency is None else part(b"tRNS", transparency)
    body = part(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + extra + body + part(b"IEND", b"")


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 20]) + data[middle + 20 :]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "empty"),
    "truncated JPEG": (lambda: encoded(photo(), "JPEG")[:-900], "truncated"),
    "truncated PNG": (lambda: encoded(photo())[:-3000], "truncated"),
    "truncated WebP": (lambda: encoded(photo(), "WEBP")[:-300], "truncated"),
    "truncated AVIF": (lambda: encoded(photo(), "AVIF")[:-300], "truncated"),
    "truncated GIF": (lambda: encoded(photo(), "GIF")[:300], "truncated"),
    "JPEG cut in its header": (lambda: encoded(photo(), "JPEG")[:200], "truncated"),
    "AVIF whose pixels cannot be found": (lambda: encoded(photo(), "AVIF").replace(b"iloc", b"xxxx"), "corrupt"),
    "HTML error page": (lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "html"),
    "HTML after blanks and a BOM": (lambda: b"\xef\xbb\xbf\n  <HTML><title>Error</title>", "html"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "svg"),
    "SVG after an XML declaration": (lambda: b'<?xml version="1.0"?><!-- x --><svg width="9"/>', "svg"),
    "text": ("상품 이미지가 없습니다\n图片不存在".encode, "text"),
    "random bytes": (lambda: np.random.default_rng(1).bytes(5000), "unsupported_format"),
    "PDF": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "unsupported_format"),
    "TIFF": (lambda: encoded(photo(), "TIFF"), "unsupported_format"),
    "decompression bomb": (lambda: png(19_000, 19_000, 8, 2, bytes(100)), "too_many_pixels"),
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
    stored = stored_for(corners(), orientation)
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


def test_a_transparent_sixteen_bit_grey_lies_on_white() -> None:
    values = np.array([[0x1234, 0x1233, 0xFFFF]], dtype=">u2")
    data = png(3, 1, 16, 0, values.tobytes(), transparency=struct.pack(">H", 0x1234))
    assert pixels(data)[0, :, 0].tolist() == [255, 0x12, 255]


def test_sixteen_bit_colours_are_scaled_not_clipped() -> None:
    values = np.array([[0, 0x0180, 0xFFFF], [0x8000, 0x7FFF, 0x00FF]], dtype=">u2")
    shown = pixels(png(2, 1, 16, 2, values.tobytes())).astype(int)
    assert np.abs(shown - [[[0, 1, 255], [128, 127, 1]]]).max() <= 1
    with_alpha = np.array([[0x4000, 0x8000, 0xC000, 0xFFFF], [0, 0, 0, 0]], dtype=">u2")
    assert pixels(png(2, 1, 16, 6, with_alpha.tobytes())).tolist() == [[[0x40, 0x80, 0xC0], [255, 255, 255]]]


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


def test_the_first_of_several_pictures_in_one_jpeg() -> None:
    data = encoded(photo(640, 480), "MPO", save_all=True, append_images=[photo(640, 480)])
    assert decode(data, target=(100, 100), limits=LIMITS).size == (160, 120)


def test_no_warning_reaches_the_log() -> None:
    """In a process of its own, for pytest's filters would lie over ours."""
    data = encoded(corners(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\xff\x7f\x01\0\0\0")
    code = "import sys; from shopvision.images import decode; print(decode(sys.stdin.buffer.read()).size)"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], input=data, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"(40, 20)\n", b"")


def test_large_jpegs_are_decoded_at_reduced_scale() -> None:
    data = encoded(photo(1600, 1200), "JPEG")
    assert decode(data, target=(256, 256), limits=LIMITS).size == (400, 300)  # 1/8 would fall below 256
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = encoded(photo(1600, 1200), "JPEG", exif=exif)
    assert decode(rotated, target=(700, 300), limits=LIMITS).size == (600, 800)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_scale_shifts_nothing(orientation: int) -> None:
    """1274 is no multiple of 4: whoever takes the reduced picture's edge for whole is off by some levels on average."""
    stored = stored_for(soft_photo(1274, 1579), orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    reduced = encoded(stored, "JPEG", quality=95, exif=exif)
    upright = decode(reduced, limits=LIMITS)
    assert upright.size == (1274, 1579)
    assert min(decode(reduced, target=LITE0.resized, limits=LIMITS).size) == 319
    difference = np.abs(
        prepare(reduced, LITE0, LIMITS).astype(int) - prepare(encoded(upright, compress_level=1), LITE0, LIMITS)
    )
    assert difference.mean() < 0.8


@pytest.mark.timeout(20)  # a millisecond, or a minute and gigabytes
def test_a_very_long_picture_takes_no_more_memory_than_its_crop() -> None:
    """Resized as a whole it would have 256 x 5,120,000 pixels."""
    prepared = prepare(encoded(Image.new("L", (20_000, 1), 77)), LITE0, LIMITS)
    assert prepared.shape == (224, 224, 3)
    assert (prepared == 77).all()


def test_of_a_very_long_picture_the_middle_is_kept() -> None:
    ramp = Image.fromarray(np.tile(np.arange(2001) / 2000 * 255, (100, 1)).astype(np.uint8))
    for image in (ramp, ramp.transpose(Image.Transpose.ROTATE_270)):
        difference = prepare(encoded(image), LITE0, LIMITS) - timm_pixels(image.convert("RGB"), LITE0)
        assert np.abs(difference).max() <= 1


def timm_pixels(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    from timm.data import create_transform

    transform = create_transform(
        input_size=(3, *preprocessing.size), interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_fraction, crop_mode=preprocessing.resize_mode, mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    return np.rint(transform(image).numpy().transpose(1, 2, 0) * 255).astype(int)


@pytest.mark.parametrize("size", [(224, 224), (300, 200), (200, 301), (640, 480), (257, 1000), (33, 40)])
@pytest.mark.parametrize(
    "preprocessing",
    [
        LITE0,
        Preprocessing(size=(240, 240), crop_fraction=0.95, interpolation="bilinear"),
        Preprocessing(size=(192, 256), crop_fraction=0.9),
        Preprocessing(size=(224, 224), crop_fraction=0.9, resize_mode="squash"),
        Preprocessing(size=(64, 48), resize_mode="squash"),
    ],
    ids=["square", "bilinear", "oblong", "squash and crop", "squash"],
)
def test_preparing_gives_timms_pixels(size: tuple[int, int], preprocessing: Preprocessing) -> None:
    image = photo(*size)
    np.testing.assert_array_equal(prepare(encoded(image), preprocessing, LIMITS), timm_pixels(image, preprocessing))


@pytest.mark.parametrize("size", [(1100, 1400), (1400, 1100), (640, 640)])
def test_preparing_large_photos_gives_timms_pixels(size: tuple[int, int]) -> None:
    image = soft_photo(*size)
    np.testing.assert_array_equal(prepare(encoded(image), LITE0, LIMITS), timm_pixels(image, LITE0))


def test_squash_ignores_the_aspect_ratio() -> None:
    squash = Preprocessing(size=(10, 30), resize_mode="squash", interpolation="bilinear")
    prepared = prepare(encoded(corners()), squash, LIMITS)
    assert prepared.shape == (10, 30, 3)
    assert prepared[2, 7].tolist() == list(RED)
    assert prepared[8, 25].tolist() == list(WHITE)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_large_transparent_pictures_lie_on_white(mode: str) -> None:
    """They are laid there in strips, of which these have several."""
    colours, alpha = soft_photo(1200, 700), Image.linear_gradient("L").resize((1200, 700))
    if mode == "P":
        layer = colours.quantize(64)
        data = encoded(layer, transparency=3)
        layer.info["transparency"] = 3
    else:
        layer = colours.convert("L") if mode == "LA" else colours
        layer.putalpha(alpha)
        layer = layer.quantize(64) if mode == "PA" else layer
        data = encoded(layer)
    whole = layer.convert("RGBA")
    expected = Image.new("RGB", whole.size, "white")
    expected.paste(whole, mask=whole.getchannel("A"))
    np.testing.assert_array_equal(pixels(data), np.asarray(expected))


def test_large_16_bit_greys_are_scaled() -> None:
    values = np.linspace(0, 65535, 900 * 600).astype(np.uint16).reshape(600, 900)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values)))[:, :, 1], np.rint(values / 257))
