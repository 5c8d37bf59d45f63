"""Whether this process has packages made that it does not find.

A worker does, because it will run the same network for hours; a command or a script that embeds a picture does not.
"""

from __future__ import annotations

from shopvision.settings import get_settings

_is_worker = False


def make_packages_here() -> None:
    """From now on this process has missing packages made beside its work, unless the settings forbid it."""
    global _is_worker  # noqa: PLW0603 - it is the process that is a worker
    _is_worker = True


def makes_packages() -> bool:
    """Whether missing packages are made for this process."""
    return _is_worker and get_settings().compile_in_background
