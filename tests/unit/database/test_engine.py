"""One engine for each process, whoever asks first."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from shopvision.database import engine


def test_threads_that_ask_at_once_get_one_engine(
    monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> None:
    """A second one would be forgotten with its connections open."""
    set_environment(SHOPVISION_DATABASE_URL="postgresql://user:secret@127.0.0.1:1/shop")

    def slowly(*args: Any, **options: Any) -> Engine:
        time.sleep(0.05)
        return create_engine(*args, **options)

    monkeypatch.setattr(engine, "create_engine", slowly)
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: engine.get_engine(), range(8)))
    assert len({id(one) for one in made}) == 1
    engine.dispose_engine()
    assert engine.get_engine() is not made[0]
