"""What producers send: refused in one line before the database sees it, and one job however often it is delivered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.app.task import Task
from celery.exceptions import Retry
from pydantic import Field
from sqlalchemy import func, select, text

from shopvision.database import connect
from shopvision.errors import UserError
from tests.conftest import Run
from tests.integration.ledger.conftest import CountKind
from worker import registration
from worker.app import app
from worker.kinds import JobParams, get_kind
from worker.ledger import jobs
from worker.ledger.progress import job_progress, recent_jobs
from worker.ledger.tables import Job

NUL, HALF = "a\x00b", "a\ud800b"


class FreeParams(JobParams):
    """Parameters that take anything."""

    numbers: int = 1
    ratio: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)


@pytest.fixture
def submit_count(count_kind: CountKind, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task[..., None]]:
    """The task that a producer sends."""
    monkeypatch.setattr(CountKind, "params", FreeParams)
    yield registration.register(count_kind)
    for name in ("count", "count.split", "count.chunk", "count.finish"):
        app.tasks.pop(f"tasks.{name}")


def by_message(task: Task[..., None], **kwargs: Any) -> None:
    task.apply(kwargs=kwargs, throw=True)


def by_library(task: Task[..., None], *, key: Any = None, **kwargs: Any) -> None:
    with connect() as connection:
        jobs.submit(connection, "count", kwargs, key=key)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"key": ""}, "key is empty"),
    ({"key": "  "}, "key is empty"),
    ({"key": 5}, "key is int: give text"),
    ({"key": ["A"]}, "key is list: give text"),
    ({"key": "k" * 501}, "key has 501 characters, at most 500"),
    ({"key": NUL}, "key contains a NUL"),
    ({"key": HALF}, "key is no valid Unicode"),
    ({"options": {"title": NUL}}, "count.options.title contains a NUL"),
    ({"options": {"titles": [["fine", HALF]]}}, "count.options.titles is no valid Unicode"),
    ({"options": {NUL: 1}}, "a name in count.options contains a NUL"),
    ({"options": {"price": float("nan")}}, "count.options.price is nan"),
    ({"options": {"price": 10**1_000}}, "count.options.price is a number of more than 1,000 digits"),
    ({"ratio": float("inf")}, "count.ratio is inf"),
    ({"ratio": "-inf"}, "count.ratio is -inf"),
    ({"options": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "nested more than 32 levels"),
    ({"x" * 20_000: 1}, "Extra inputs"),
]


@pytest.mark.parametrize("way", [by_message, by_library])
@pytest.mark.parametrize(("given", "words"), WRONG)
def test_what_cannot_be_stored_is_refused_in_one_short_line(
    submit_count: Task[..., None], way: Callable[..., None], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as refused:
        way(submit_count, **given)
    message = str(refused.value)
    assert words in message
    assert message.isprintable()
    assert len(message) < 300
    assert recent_jobs() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--key", ""], "key is empty"),
        (["--key", HALF], "key is no valid Unicode"),
        ([f"item_ids=[{json.dumps(NUL)}]"], "contains a NUL"),
        ([f'item_ids=["{HALF}"]'], "is no valid Unicode"),
        (["model=Infinity"], "refresh_embeddings.model is inf"),
        ([f'item_ids=["{"x" * 20_000}"]'], "at most 200 characters"),
        (["item_ids=" + "[" * 100_000], "is nested too deep"),
        (["scope=all", "scope=changed"], "'scope' is given twice"),
    ],
)
def test_the_command_refuses_it_too(database: None, command_line: Run, arguments: list[str], words: str) -> None:
    status, out, err = command_line("jobs", "submit", "refresh_embeddings", *arguments)
    assert (status, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1
    assert recent_jobs() == []


def test_a_message_delivered_twice_is_one_job(submit_count: Task[..., None]) -> None:
    for _ in range(2):
        submit_count.apply(kwargs={"numbers": 3}, task_id="8f6c", throw=True)
    submit_count.apply(kwargs={"numbers": 3}, task_id="another", throw=True)
    assert [job.key for job in recent_jobs()] == ["another", "8f6c"]
    submit_count.apply(kwargs={"numbers": 3, "key": "mine"}, task_id="third", throw=True)
    assert recent_jobs()[0].key == "mine"


def test_parameters_without_a_name_are_refused(submit_count: Task[..., None]) -> None:
    """Before, the first one was taken for the key, and the job did everything there is to do."""
    with pytest.raises(UserError, match=r"tasks\.count takes its parameters by name, and got 1 without one"):
        submit_count.apply(args=[["A"]], throw=True)
    assert recent_jobs() == []


@pytest.mark.parametrize(("state", "waits"), [("57P01", True), ("40P01", True), ("53100", False), ("22003", False)])
def test_a_submission_waits_only_for_what_passes(
    submit_count: Task[..., None], monkeypatch: pytest.MonkeyPatch, state: str, waits: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        with connect() as connection:
            connection.execute(text(f"DO $$BEGIN RAISE 'so it is' USING ERRCODE = '{state}'; END$$"))

    monkeypatch.setattr(jobs, "submit", refuse)
    monkeypatch.setattr(type(submit_count), "retry", lambda *_, **options: Retry(when=options["countdown"]))
    with pytest.raises(Exception) as ended:  # noqa: PT011 - its type is what is tested
        submit_count.apply(throw=True)
    assert isinstance(ended.value, Retry) is waits


def test_failed_items_are_retried_once_however_often_one_asks(count_kind: CountKind, drain: Callable[..., int]) -> None:
    with connect() as connection:
        first = jobs.submit(connection, "count", {"numbers": 4, "bad": [1]})
    drain()
    second = jobs.retry_failed(first)
    assert jobs.retry_failed(first) == second
    drain()
    assert jobs.retry_failed(first) == second
    assert job_progress(second).failed == 1
    third = jobs.retry_failed(second)
    assert third != second
    with connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Job)) == 3


def test_a_job_that_was_resumed_is_retried_anew(count_kind: CountKind, drain: Callable[..., int]) -> None:
    with connect() as connection:
        first = jobs.submit(connection, "count", {"numbers": 8, "bad": [1, 6]})
    drain(limit=2)
    jobs.cancel(first)
    assert job_progress(first).failed == 1
    second = jobs.retry_failed(first)
    jobs.resume(first)
    drain()
    assert job_progress(first).failed == 2
    assert jobs.retry_failed(first) != second


def test_every_kind_takes_ids_as_long_as_the_catalogues_and_no_longer() -> None:
    for kind, name in (("refresh_embeddings", "item_ids"), ("rank_plans", "plan_ids"), ("score_pairs", "item_ids")):
        params = get_kind(kind).params
        assert params.model_validate({name: ["x" * 200]})
        with pytest.raises(ValueError, match="at most 200 characters"):
            params.model_validate({name: ["x" * 201]})
