"""How many processes with how many threads, by what was measured of the models that serve now."""

from __future__ import annotations

import os
from collections import Counter

from shopvision.settings import get_settings
from worker.stack.processes import available_cores, malloc_variables


def measured_layout() -> tuple[int, int] | None:
    """(threads, processes) of a worker that runs models on this machine's CPU.

    Where the active models disagree, what most of their networks want counts, and of equally many what the
    catalogue's encoder wants.

    Returns:
        None where nothing was measured on this machine as it is now, or ``SHOPVISION_FAST_PATHS`` is false.

    Raises:
        DBAPIError: the database cannot be asked.
    """
    from shopvision import models
    from shopvision.encoders.tuning import TuningStore, this_machine
    from shopvision.models.part import digests_in

    settings, cores = get_settings(), available_cores()
    measured = [tuning for tuning in TuningStore(settings.home).all() if tuning.layout is not None]
    if not (measured and settings.fast_paths):
        return None
    here = this_machine(1, environment={**os.environ, **malloc_variables()})
    roles = models.roles()
    wanted: Counter[tuple[int, int]] = Counter()
    for role in sorted(roles, key=lambda role: role != "catalogue_encoder"):
        active = roles[role].active
        digests = digests_in(models.find(active).card) if active else set()
        layouts = {
            (tuning.digest, tuning.part): tuning.layout
            for tuning in measured
            if tuning.digest in digests and tuning.machine.model_copy(update={"threads": 1}) == here
        }
        wanted.update(layout for layout in layouts.values() if layout is not None and layout[0] * layout[1] <= cores)
    return wanted.most_common(1)[0][0] if wanted else None
