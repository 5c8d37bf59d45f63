"""The Celery application. Its settings stand in ``worker.celery_config``, read at first need and not at import."""

from __future__ import annotations

from celery import Celery
from celery.signals import setup_logging

app = Celery("shopvision", set_as_current=True)
app.config_from_object("worker.celery_config")


@setup_logging.connect
def _set_up_logging(**_: object) -> None:
    from worker.logs import configure_logging

    configure_logging()
