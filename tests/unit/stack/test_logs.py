"""A broker that is away is a line in the log; a fault in the code keeps its stack."""

from __future__ import annotations

import logging
import sys

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisAwayError

from worker.logs import keep_to_one_line


def told(logger: str, message: str, error: Exception) -> logging.LogRecord:
    try:
        raise error
    except type(error):
        record = logging.LogRecord(logger, logging.ERROR, __file__, 1, message, (), sys.exc_info())
    assert keep_to_one_line(record)
    return record


@pytest.mark.parametrize("error", [RedisAwayError("refused"), OperationalError("refused"), OSError("refused")])
@pytest.mark.parametrize("logger", ["celery.worker.consumer.consumer", "celery.worker", "kombu.connection"])
def test_a_broker_that_is_away_has_no_stack(logger: str, error: Exception) -> None:
    record = told(logger, "consumer: connection lost", error)
    assert (record.getMessage(), record.exc_info, record.exc_text) == ("consumer: connection lost", None, None)


def test_help_texts_are_cut() -> None:
    record = told("celery.worker.consumer.consumer", "Received and deleted unknown message.\n\nThe full contents ...",
                  KeyError("task"))  # fmt: skip
    assert (record.getMessage(), record.exc_info) == ("Received and deleted unknown message.", None)


@pytest.mark.parametrize("logger", ["celery.worker", "worker.runner"])
def test_a_fault_in_the_code_keeps_its_stack(logger: str) -> None:
    record = told(logger, "failed", ValueError("wrong"))
    assert record.exc_info is not None
    assert told("worker.runner", "failed", RedisAwayError("refused")).exc_info is not None
