"""The job kind of docs/adding-a-job-kind.md, as it stands there, does what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import text

from shopvision.catalogue import upsert_items
from shopvision.database import connect
from tests.integration.ledger.conftest import RememberingBroker
from worker import kinds
from worker.ledger.jobs import submit
from worker.ledger.outbox import relay
from worker.ledger.progress import job_progress, list_failures
from worker.runner import run_step

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-job-kind.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.fixture
def example(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> Iterator[None]:
    """The page's module on the import path and its table in the database."""
    (tmp_path / "docs_example_kinds.py").write_text(block("python"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(kinds, "_kinds", dict(kinds._kinds))
    set_environment(SHOPVISION_KIND_MODULES="tasks,docs_example_kinds", SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    with connect() as connection:
        connection.execute(text(block("sql")))
    yield
    with connect() as connection:
        connection.execute(text("DROP TABLE picture_sizes"))


def test_the_example_kind_measures_pictures(example: None, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "small.png")
    Image.new("RGB", (80, 160)).save(tmp_path / "large.png")
    (tmp_path / "broken.png").write_text("no picture")
    names = ("small", "large", "broken")
    with connect() as connection:
        upsert_items(connection, [{"item_id": name, "images": [(tmp_path / f"{name}.png").as_uri()]} for name in names])
        job_id = submit(connection, "measure_pictures", {"zoom_side": 100})
    broker = RememberingBroker()
    relay(broker, 64)
    while broker.messages:
        run_step(broker.messages.popleft()[1], "test@here")
        relay(broker, 64)

    progress = job_progress(job_id)
    assert (progress.state, progress.done, progress.failed) == ("succeeded", 2, 1)
    assert progress.counters == {"too_small": 1}
    assert progress.result == {"measured": 2}
    assert [failure["code"] for failure in list_failures(job_id, limit=10)] == ["text"]
    with connect() as connection:
        sizes = connection.execute(text("SELECT width, height FROM picture_sizes ORDER BY width")).all()
    assert sizes == [(30, 20), (80, 160)]
