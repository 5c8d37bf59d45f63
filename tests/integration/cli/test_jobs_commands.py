"""``shopvision jobs``: what it prints, as JSON and for people, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from shopvision.database import connect
from tests.conftest import Run
from worker.ledger.tables import Job

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def run(command_line: Run) -> Run:
    return command_line


def submitted(run: Run, *arguments: str) -> str:
    status, out, _ = run("jobs", "submit", "refresh_embeddings", *arguments, "--json")
    assert status == 0
    return str(json.loads(out)["job_id"])


def test_a_job_is_submitted_listed_shown_and_cancelled(run: Run) -> None:
    job_id = submitted(run, "scope=all", 'item_ids=["a", "b"]', "--key", "one")
    assert submitted(run, "--key", "one") == job_id
    _, out, _ = run("jobs", "show", job_id[:8], "--json")
    shown: dict[str, Any] = json.loads(out)
    assert (shown["state"], shown["source"], shown["params"]) == (
        "running",
        "cli",
        {"scope": "all", "item_ids": ["a", "b"]},
    )
    _, out, _ = run("jobs", "list", "--state", "running", "--json")
    assert [job["job_id"] for job in json.loads(out)] == [job_id]
    assert run("jobs", "cancel", job_id)[:2] == (0, "cancelled\n")
    assert json.loads(run("jobs", "show", job_id, "--json")[1])["state"] == "cancelled"
    assert run("jobs", "resume", job_id)[0] == 0


@pytest.mark.parametrize(("state", "status"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_the_exit_status_tells_how_a_job_ended(run: Run, state: str, status: int) -> None:
    job_id = submitted(run)
    with connect() as connection:
        connection.execute(
            update(Job).values(state=state, error="The weights are missing." if state == "failed" else None)
        )
    assert run("jobs", "show", job_id)[0] == status
    ended, out, _ = run("jobs", "watch", job_id)
    assert ended == status
    assert state in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "refresh"], "Unknown job kind 'refresh'. There are: "),
        (["submit", "refresh_embeddings", "scope=some"], "scope: Input should be 'changed' or 'all'"),
        (["submit", "refresh_embeddings", "colour=red"], "colour: Extra inputs are not permitted. It takes: scope"),
        (["submit", "refresh_embeddings", "item_ids=[]"], "item_ids is empty"),
        (["submit", "refresh_embeddings", "all"], "Parameter 'all' is not of the form name=value"),
        (["show", "nope"], "There is no job 'nope'"),
        (["cancel", "00000000"], "There is no job '00000000'"),
        (["failures", "00000000"], "There is no job '00000000'"),
        (["list", "--state", "done"], "Unknown state 'done'. There are: running, succeeded, failed, cancelled"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_a_failure(run: Run, arguments: list[str], words: str) -> None:
    status, out, err = run("jobs", *arguments)
    assert (status, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


def test_nothing_to_retry_is_said(run: Run) -> None:
    job_id = submitted(run)
    assert "is still running" in run("jobs", "retry-failed", job_id)[2]


def test_a_database_that_is_away_is_said_in_one_line(run: Run, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_DATABASE_URL="postgresql://shopvision:secret@127.0.0.1:1/shopvision")
    status, _, err = run("jobs", "list")
    assert status == 1
    assert "The database does not answer" in err
    assert "secret" not in err
    assert err.count("\n") == 1
    set_environment(SHOPVISION_DATABASE_URL="not an address")
    assert "is not an address like postgresql://" in run("jobs", "list")[2]
