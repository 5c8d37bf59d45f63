"""The memory of decoded pictures is bounded for the whole process, and what a picture takes is known beforehand."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from shopvision.errors import ItemError
from shopvision.images import PictureLimits, decode
from shopvision.images.memory import held

SIDE = 1200

# Peak memory of each picture as the kernel counted it, beside what was taken out of the budget for it.
MEASURE = """
import ctypes, io, sys
import numpy as np
from PIL import Image
from shopvision.images import PictureLimits, decoding, memory

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

side = int(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
rgb = Image.fromarray(noise).resize((side, side))
rgba = rgb.copy()
rgba.putalpha(rgb.convert("L"))
grey, palette, cmyk = rgb.convert("L"), rgb.quantize(64), rgb.convert("CMYK")
deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
turned = Image.Exif()
turned[0x0112] = 6
pictures = {
    "JPEG": (rgb, "JPEG", {}), "turned JPEG": (rgb, "JPEG", {"exif": turned}), "CMYK JPEG": (cmyk, "JPEG", {}),
    "progressive JPEG": (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
    "progressive JPEG at 1/8": (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
    "grey progressive JPEG": (grey, "JPEG", {"progressive": True}),
    "PNG": (rgb, "PNG", {}), "PNG with alpha": (rgba, "PNG", {}),
    "grey PNG with alpha": (rgba.convert("LA"), "PNG", {}),
    "palette PNG": (palette, "PNG", {}), "palette PNG with transparency": (palette, "PNG", {"transparency": 3}),
    "16-bit PNG": (deep, "PNG", {}), "WebP": (rgb, "WEBP", {}), "WebP with alpha": (rgba, "WEBP", {"method": 0}),
    "lossless WebP": (rgb, "WEBP", {"lossless": True, "method": 0}), "GIF": (palette, "GIF", {}),
    "BMP": (rgb, "BMP", {}), "AVIF": (rgb, "AVIF", {"speed": 10}), "AVIF with alpha": (rgba, "AVIF", {"speed": 10}),
}
encoded = {}
for name, (image, form, options) in pictures.items():
    file = io.BytesIO()
    image.save(file, form, **({"compress_level": 1} if form == "PNG" else {}), **options)
    encoded[name] = file.getvalue()
del rgb, rgba, grey, palette, cmyk, deep, pictures, image
limits = PictureLimits(10**9, 10**5, 2**40)
for name, data in encoded.items():
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = status("VmRSS")
    with decoding(data, target=(side // 8, side // 8) if "1/8" in name else None, limits=limits):
        print(name, status("VmHWM") - before, memory._held, sep=";")
"""


@pytest.mark.slow
def test_no_picture_takes_more_than_was_foreseen() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, str(SIDE)], check=True, capture_output=True, text=True, timeout=60
    )
    rows = [line.split(";") for line in answer.stdout.splitlines()]
    assert len(rows) == 19
    for name, taken, foreseen in rows:
        assert int(taken) <= int(foreseen), name
        assert int(foreseen) < 3 * int(taken) + 2**23, name  # nor is memory kept from others for nothing


PALETTES = """
import io, sys
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from shopvision.images import PictureLimits
from shopvision.images.preprocessing import Preprocessing, prepare

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

file = io.BytesIO()
Image.new("P", (3000, 3000)).save(file, "PNG", transparency=0)
limits = PictureLimits(10**9, 10**5, memory_bytes=130 * 2**20)
before = peak()
with ThreadPoolExecutor(8) as threads:
    made = list(threads.map(lambda _: prepare(file.getvalue(), Preprocessing(size=(8, 8)), limits), range(12)))
print(peak() - before)
"""


def test_many_large_pictures_at_once_stay_within_the_budget() -> None:
    """Each of eight threads took 90 MB at once, for files of a few kB."""
    answer = subprocess.run([sys.executable, "-c", PALETTES], check=True, capture_output=True, text=True, timeout=60)
    assert int(answer.stdout) < 200 * 2**20


def test_a_picture_larger_than_the_budget_is_refused_and_others_go_on() -> None:
    file = io.BytesIO()
    Image.new("L", (3000, 3000)).save(file, "PNG")
    small = io.BytesIO()
    Image.new("L", (30, 30)).save(small, "PNG")
    limits = PictureLimits(10**9, 10**5, memory_bytes=20 * 2**20)
    with pytest.raises(ItemError, match="20,971,520 are there for all pictures") as error:
        decode(file.getvalue(), limits=limits)
    assert error.value.code == "over_memory"
    assert decode(small.getvalue(), limits=limits).size == (30, 30)


def test_no_more_is_held_than_there_is() -> None:
    most, now, lock = 0, 0, threading.Lock()

    def take(needed: int) -> None:
        nonlocal most, now
        with held(needed, 100):
            with lock:
                now += needed
                most = max(most, now)
            time.sleep(0.001)
            with lock:
                now -= needed

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(take, [7, 100, 33, 50, 1] * 20))
    assert now == 0
    assert 50 < most <= 100


def test_who_comes_first_is_served_first() -> None:
    order: list[str] = []
    threads = []

    def take(name: str, needed: int) -> None:
        with held(needed, 100):
            order.append(name)

    with held(60, 100):
        for name, needed in (("large", 90), ("small", 10)):  # the small one would fit at once
            threads.append(threading.Thread(target=take, args=(name, needed)))
            threads[-1].start()
            time.sleep(0.05)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == ["large", "small"]


def test_what_fails_gives_back_what_it_held() -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="odd"), held(80, 100):
            raise ValueError("odd")
    with held(100, 100):
        pass


def scans_of_their_own(width: int, height: int) -> bytes:
    """A sequential JPEG whose three components come one after the other, made of three grey ones."""
    parts = []
    for value in (90, 120, 200):
        file = io.BytesIO()
        Image.new("L", (width, height), value).save(file, "JPEG", quality=80)
        parts.append(file.getvalue())
    frame = parts[0].index(b"\xff\xc0")
    scan = parts[0].index(b"\xff\xda")
    after_frame = frame + 2 + int.from_bytes(parts[0][frame + 2 : frame + 4], "big")
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    size = parts[0][frame + 5 : frame + 9]
    head = parts[0][:frame] + b"\xff\xc0\x00\x11\x08" + size + b"\x03" + components + parts[0][after_frame:scan]
    body = b"".join(
        b"\xff\xda\x00\x08\x01" + bytes([number, 0]) + b"\x00\x3f\x00" + part[part.index(b"\xff\xda") + 10 : -2]
        for number, part in enumerate(parts, 1)
    )
    return head + body + b"\xff\xd9"


def test_sequential_jpegs_in_several_scans_count_with_their_coefficients() -> None:
    data = scans_of_their_own(2000, 1000)
    assert decode(data).size == (2000, 1000)
    limits = PictureLimits(10**9, 10**5, memory_bytes=6 * 2_000_000)
    with pytest.raises(ItemError) as error:
        decode(data, target=(125, 250), limits=limits)  # its pixels would fit at this scale
    assert error.value.code == "over_memory"
    file = io.BytesIO()
    Image.new("RGB", (2000, 1000)).save(file, "JPEG")
    assert decode(file.getvalue(), target=(125, 250), limits=limits).size == (250, 125)
