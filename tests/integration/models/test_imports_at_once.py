"""Two processes that import other content under the same name and tag at once: one wins, whole, and one is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shopvision.models import registry
from shopvision.models.card import Architecture
from shopvision.models.version_folder import write_version

SIZE = 2**21
IMPORT = """
import sys
from shopvision.errors import UserError
from shopvision.models import registry
print("ready", flush=True)
sys.stdin.readline()
try:
    print(registry.import_model(sys.argv[1]).card.source)
except UserError as error:
    print(error)
"""


def saved(folder: Path, number: int) -> str:
    write_version(
        folder, [lambda place: (place / "data").write_bytes(bytes([number]) * SIZE)],
        name="made", tag="v1", kind="bytes", source=f"maker {number}", architecture=Architecture(name="bytes"),
    )  # fmt: skip
    return f"local-dir:{folder}"


@pytest.mark.usefixtures("database")
def test_processes_that_import_one_version(tmp_path: Path, set_environment: Callable[..., None]) -> None:
    set_environment(
        SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri(),
        SHOPVISION_MODEL_KIND_MODULES="tests.integration.models.byte_kind",
    )
    sources = [saved(tmp_path / f"made{number}", number) for number in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", IMPORT, source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for source in sources
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    won, told = sorted(
        (process.communicate(timeout=120)[0].splitlines()[-1] for process in processes), reverse=True
    )  # "maker ..." comes after "made:v1 ..."
    assert told.startswith("made:v1 exists with other content")
    ref = registry.find("made:v1")
    assert ref.card.source == won
    assert (registry.local_copy(ref) / "data").read_bytes() == bytes([int(won.split()[1])]) * SIZE
