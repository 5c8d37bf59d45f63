"""What another program does between two statements of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from shopvision.database import get_engine


@contextmanager
def right_after(part: str, do: Callable[[], object]) -> Iterator[None]:
    """``do`` once, when the first statement that holds ``part`` has been answered, on another connection."""
    waiting = [do]

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if part in statement and waiting:
            waiting.pop()()

    event.listen(get_engine(), "after_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(get_engine(), "after_cursor_execute", look)
    assert not waiting, f"no statement held {part!r}"
