"""Pool processes that never come up."""

from __future__ import annotations

import time

from celery.signals import worker_process_init


@worker_process_init.connect
def _import_for_ever(**_: object) -> None:
    time.sleep(3600)
