"""Measuring models that are new to this machine, between two chunks of a worker process."""

from __future__ import annotations

import structlog

from shopvision.errors import UserError
from shopvision.settings import get_settings
from worker.ledger.running_step import stop_file

log = structlog.get_logger(__name__)

# A process that had so little to compute will not gain what measuring costs.
MEASURE_AFTER_SECONDS = 10.0

_computed = 0.0
_ended = False


def after_chunk(model_seconds: float) -> None:
    """Measure one network that this process has loaded and that was never measured here, if it computes enough.

    Other processes go on with what is usual meanwhile; so does this one where it cannot be measured or kept.

    Args:
        model_seconds: that the chunk's models took.
    """
    global _computed, _ended  # noqa: PLW0603 - they are the process's
    _computed += model_seconds
    if _ended or _computed < MEASURE_AFTER_SECONDS or not get_settings().tuning_seconds:
        return
    from shopvision.encoders.tuning.tuner import tune_where_new
    from shopvision.models.loaded import loaded_models

    told_to_stop = stop_file()
    try:
        for model in loaded_models():
            if tune_where_new(model, most=1, should_stop=lambda: told_to_stop is not None and told_to_stop.exists()):
                return
    except UserError as error:
        _ended = True
        log.warning("models_not_measured", error=str(error))
    except Exception:  # a network that cannot run made-up inputs still runs those of the shop
        _ended = True
        log.exception("measuring_failed")
