"""Registering a job kind makes its Celery tasks; parameters are checked in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from shopvision.errors import UserError
from worker import kinds
from worker.app import app
from worker.kinds import ChunkResult, JobKind, JobParams, StepContext, get_kind, parse_params
from worker.registration import register


class ToyParams(JobParams):
    size: int = 1


class Toy(JobKind[ToyParams]):
    name = "toy"
    queue = "io"
    params = ToyParams

    def split(self, params: ToyParams, context: StepContext) -> Iterator[str]:
        yield from "ab"

    def run(self, params: ToyParams, keys: list[str], context: StepContext) -> ChunkResult:
        return ChunkResult(done=len(keys))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    monkeypatch.setattr(kinds, "_kinds", {})
    kind = Toy()
    register(kind)
    yield kind
    for name in ("toy", "toy.split", "toy.chunk", "toy.finish"):
        app.tasks.pop(f"tasks.{name}", None)


def test_a_kind_has_one_task_for_producers_and_three_for_the_ledger(toy: Toy) -> None:
    assert {name for name in app.tasks if ".toy" in name} == {
        "tasks.toy", "tasks.toy.split", "tasks.toy.chunk", "tasks.toy.finish",
    }  # fmt: skip


def test_messages_are_json_and_acknowledged_late(toy: Toy) -> None:
    task = app.tasks["tasks.toy.chunk"]
    assert (task.serializer, task.acks_late, task.ignore_result) == ("json", True, True)
    assert list(app.conf.accept_content) == ["json"]
    assert app.conf.broker_transport_options["visibility_timeout"] > app.conf.task_time_limit


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"sise": 2}, "toy: sise: Extra inputs are not permitted. It takes: size."),
        ({"size": "x"}, "toy: size: Input should be a valid integer"),
    ],
)
def test_wrong_parameters_are_named(toy: Toy, raw: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_params(toy, raw)


def test_a_kind_module_that_is_not_there_is_named(set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_KIND_MODULES="tasks.refresh_embeddings,shop.kinds")
    with pytest.raises(UserError, match=r"SHOPVISION_KIND_MODULES names 'shop.kinds', which cannot be imported"):
        get_kind("refresh_embeddings")
