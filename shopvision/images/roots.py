"""Which local folders pictures may be read from."""

from __future__ import annotations

from pathlib import Path

from shopvision.settings import Settings

FILE_NAME = "image_roots"


def allowed_image_roots(settings: Settings) -> tuple[Path, ...]:
    """The folders of SHOPVISION_IMAGE_ROOTS and those that imports on this machine's local stack have added."""
    try:
        added = (settings.home / FILE_NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        added = []
    return tuple(root.resolve() for root in (*settings.image_roots, *(Path(line) for line in added if line)))


def allow_image_root(settings: Settings, root: Path) -> None:
    """Let the workers of the local stack in ``settings.home`` read below ``root``, from their next chunk on."""
    resolved = root.resolve()
    if any(resolved.is_relative_to(allowed) for allowed in allowed_image_roots(settings)):
        return
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / FILE_NAME).open("a", encoding="utf-8") as roots:
        roots.write(f"{resolved}\n")
