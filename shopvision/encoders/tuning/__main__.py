"""One of the processes that ``layouts`` starts: loads a model, waits for the others, measures, tells on stdout.

Run with the environment of a worker, so that threads and malloc are as they will be there.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from shopvision.encoders.tuning.layouts import GO, READY
from shopvision.errors import ShopvisionError, UserError


def _measure(spec: str, replicas: int, seconds: float) -> list[dict[str, Any]]:
    import torch

    from shopvision import models
    from shopvision.encoders.tuning.precision import tune_precision
    from shopvision.encoders.tuning.tuner import parts_of, tune

    model = models.load(spec)
    if not parts_of(model):
        kind = models.find(spec).card.kind
        raise UserError(f"{spec} is of the kind {kind}, which cannot be tuned: it has no network that takes batches.")
    print(READY, file=sys.__stdout__, flush=True)
    if sys.stdin.readline().strip() != GO:
        raise SystemExit(1)
    with torch.inference_mode():
        tunings = [tune(part, seconds, replicas=replicas) for part in parts_of(model)]
        tunings = tune_precision(spec, model, tunings, seconds)
    return [tuning.model_dump(mode="json") for tuning in tunings]


def main(spec: str, replicas: str, seconds: str) -> int:
    """Print what was measured as JSON, or the reason why nothing was; returns the exit status."""
    told = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    try:
        answer: Any = _measure(spec, int(replicas), float(seconds))
    except ShopvisionError as error:
        answer = {"error": str(error)}
    told.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
