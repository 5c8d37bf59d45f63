"""One file per benchmark, with one block for each kind of machine; and the page that shows them all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Table

INTRODUCTION = (
    "`make bench` writes this page; it keeps what was measured on other kinds of machines. Rates vary between "
    "machines; ratios of one run carry over."
)

Block = dict[str, Any]
"""``kind``, ``software``, ``commit``, ``command``, ``date``, ``seconds``, ``load_before``, ``tables``, ``remark``."""


def blocks(folder: Path, name: str) -> list[Block]:
    """What was measured of a benchmark, one block for each kind of machine, in the order they first came."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["blocks"] if path.exists() else []


def keep(folder: Path, name: str, block: Block) -> None:
    """Put a block in the place of the former one of its kind of machine; those of others stay."""
    known = blocks(folder, name)
    places = [place for place, other in enumerate(known) if other["kind"] == block["kind"]]
    if places:
        known[places[0]] = block
    else:
        known.append(block)
    _write(folder, name, known)


def remark(folder: Path, name: str, kind: dict[str, Any], text: str) -> bool:
    """Say something of what was measured on a kind of machine; false where nothing was."""
    known = blocks(folder, name)
    mine = [block for block in known if block["kind"] == kind]
    for block in mine:
        block["remark"] = text
    _write(folder, name, known)
    return bool(mine)


def _write(folder: Path, name: str, known: Sequence[Block]) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"blocks": known}, indent=1) + "\n", encoding="utf-8")


def render(folder: Path, names: Sequence[str]) -> str:
    """The page, by kind of machine."""
    found = [(name, block) for name in names for block in blocks(folder, name)]
    kinds: list[dict[str, Any]] = []
    kinds += [block["kind"] for _, block in found if block["kind"] not in kinds]
    kinds = [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]
    # What was measured last comes first.
    kinds.sort(key=lambda kind: max(block["date"] for _, block in found if block["kind"] == kind), reverse=True)
    lines = [
        "# Benchmarks",
        "",
        INTRODUCTION,
        "",
    ]
    for kind in kinds:
        lines += [f"## {title(kind)}", ""]
        lines += _machine([(name, block) for name, block in found if block["kind"] == kind])
    return "\n".join(lines)


def title(kind: dict[str, Any]) -> str:
    """A kind of machine in one line."""
    parts = [f"{kind['processor']}, {kind['cores']} cores", "/".join(kind["features"]) or "no vector features known"]
    parts += [kind["accelerator"]] if kind["accelerator"] else []
    parts += [f"told to use no more than {kind['instructions']}"] if kind["instructions"] else []
    return ", ".join(parts)


def _machine(found: Sequence[tuple[str, Block]]) -> Iterator[str]:
    told = None
    for _, block in found:
        if block["software"] != told:
            told = block["software"]
            yield ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items()) + "."
            yield ""
        for table in block["tables"]:
            yield Table(**table).markdown()
        yield (
            f"`{block['command']}` at {block['commit'] or 'an unknown commit'}: {block['date']}, "
            f"{block['seconds']:,} s, load average before it {block['load_before']}."
        )
        yield ""
        if block.get("remark"):
            yield block["remark"]
            yield ""
