"""Pictures to embed: real photos, as many as are wanted, small or large."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import photos

LARGE_PIXELS = (1274, 1580)
LARGE_DIFFERENT = 200
MOST_COPIES = 10_000  # beyond, hard links do


def make_pictures(folder: Path, count: int, *, large: bool) -> list[Path]:
    """Real photos, or the same enlarged to the size of an ordinary shop photo.

    Those that are embedded are repeated with other bytes, for equal ones are embedded once; the rest are hard links.
    """
    from PIL import Image

    folder.mkdir()
    sources = photos()[: LARGE_DIFFERENT if large else count]
    different = []
    for source in sources[:count]:
        path = folder / source.name
        if large:
            Image.open(source).convert("RGB").resize(LARGE_PIXELS, Image.Resampling.BICUBIC).save(path, quality=85)
        else:
            shutil.copyfile(source, path)
        different.append(path)
    return different + _repeated(different, folder, count - len(different))


def _repeated(different: Sequence[Path], folder: Path, count: int) -> list[Path]:
    made = []
    for number in range(count):
        path, source = folder / f"again-{number}.jpg", different[number % len(different)]
        if number < MOST_COPIES:
            path.write_bytes(
                source.read_bytes() + number.to_bytes(8)
            )  # beyond the picture's end, which no decoder reads
        else:
            path.hardlink_to(source)
        made.append(path)
    return made
