"""The second page of the demo: a ranker learns from plans, and their pictures are ranked."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from worker.demo.catalogue_folder import SUFFIXES
from worker.demo.guide import NEIGHBOURS, SHOWN

if TYPE_CHECKING:
    from worker.demo.guide import Guide
    from worker.demo.plans import CategoryPlan

FEWEST_PLANS = 2


def train_ranker(guide: Guide, folder: Path) -> bool:
    """Train a small CLIK and let it rank plans; False where there is nothing to learn from."""
    from shopvision import models
    from shopvision.catalogue.source_files import open_source
    from shopvision.selection.clik.train import train_clik
    from worker.demo.plans import category_plans, import_plans, ranker_config

    own = next((folder / f"plans{suffix}" for suffix in SUFFIXES if (folder / f"plans{suffix}").is_file()), None)
    plans = [] if own else category_plans()
    if own is not None:
        with open_source(str(own)) as source:
            count = import_plans(source)
    elif len(plans) >= FEWEST_PLANS:
        count = _import(plans, lambda plan: plan.members)
    else:
        guide.say(f"no plans to rank: {folder} has no plans.jsonl, and fewer than {FEWEST_PLANS} categories")
        return False
    guide.say(f"training a ranker on {count} plans, with frozen encoders ...")
    ref, _ = guide.learn(partial(train_clik, ranker_config(count)))
    models.activate("plan_ranker", ref.spec, force=True)  # a demonstration shows what little data give
    if plans:  # what a ranker is for: each plan may now choose from all that stands beside its category too
        _import(plans, lambda plan: plan.candidates)
    guide.say(f"{ref.spec} ranks plans now")
    return True


def _import(plans: Sequence[CategoryPlan], items_of: Callable[[CategoryPlan], Sequence[str]]) -> int:
    from shopvision.catalogue.source_files import Source
    from worker.demo.plans import import_plans

    records = (plan.record(items_of(plan)) for plan in plans)
    return import_plans(Source("categories", enumerate(records, start=1), lambda: 1.0))


def show_plans(guide: Guide, output: Path, job_id: uuid.UUID) -> None:
    """Write the page of a job that ranked plans, and show some of it."""
    from shopvision.selection.report import plans_of, write_report
    from worker.ledger.progress import job_progress, list_failures

    plans = plans_of(job_id)
    progress = job_progress(job_id)
    facts = [
        ("pictures compared", f"{progress.counters.get('candidates', 0):,}"),
        ("model", str(progress.params.get("model")).partition(":")[0]),
    ]
    write_report(output, plans, facts=facts, failures=list_failures(job_id, limit=200))
    shown = [
        (plan.topic.name, ", ".join(f"{one.title or one.item_id} {one.score:.2f}" for one in plan.best[:NEIGHBOURS]))
        for plan in plans[:SHOWN]
    ]
    guide.show(("plan", "pictures that suit it best"), shown)
