"""Structured logs: constant event strings, facts in fields, job and chunk ids bound to every line of a chunk."""

from __future__ import annotations

import logging
import sys

import structlog

from shopvision.settings import get_settings

# What Celery says about a message or a tick fits into its first line; help texts and stacks follow.
_LONG_WINDED = ("celery.beat", "celery.worker.consumer.consumer")
_BROKER_LIBRARIES = {"redis", "kombu"}


def keep_to_one_line(record: logging.LogRecord) -> bool:
    """A filter that shortens records of Celery: a broker that is away, or a wrong message, is no fault in the code."""
    if record.name == "py.warnings":  # at every reconnect Celery warns of what we chose on purpose
        return "CPendingDeprecationWarning" not in record.getMessage()
    if not record.name.startswith(("celery", "kombu")):
        return True
    error = record.exc_info[1] if record.exc_info else None
    broker = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _BROKER_LIBRARIES
    if record.name in _LONG_WINDED:
        record.msg, record.args = (record.getMessage().splitlines() or [""])[0], ()
    if broker or record.name in _LONG_WINDED:
        record.exc_info = record.exc_text = None
    return True


def configure_logging() -> None:
    """Send our events and those of libraries through one renderer: JSON, or coloured lines on a terminal."""
    settings = get_settings()
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
        if as_json
        else [structlog.dev.ConsoleRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(keep_to_one_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # One line per HTTP request or task receipt says nothing that the ledger does not.
    for noisy in ("httpx", "botocore", "faiss.loader", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log_warnings_to_stderr() -> None:
    """For commands, whose stdout is their answer and may be read by a program. Needs no settings."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
