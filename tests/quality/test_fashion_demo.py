"""The fashion demo on real data: street photos with boxes, and the catalogue of a clothing store.

It prints what it says, and leaves the page beside its other files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.acceptance, pytest.mark.timeout(2 * 3600)]


def test_garments_of_photos_find_the_catalogue(data: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "boxes.json").symlink_to(data / "fashion_boxes" / "train_760_7.json")
    (tmp_path / "catalogue").symlink_to(data / "magento_luma")
    done = subprocess.run(
        [Path(sys.executable).with_name("shopvision"), "demo-fashion", "--data", tmp_path],
        cwd=tmp_path, env={**os.environ, "SHOPVISION_HOME": str(tmp_path / "home"), "COLUMNS": "160"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "imported 466 items" in done.stdout
    assert "13 of 16 categories" in done.stdout  # all but watches, fitness equipment and videos
    page = (tmp_path / "demo-fashion.html").read_text(encoding="utf-8")
    assert len(re.findall(r"\btop\b", page)) > 20
