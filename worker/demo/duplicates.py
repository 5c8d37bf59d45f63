"""The third page of the demo: products listed twice, and what a matcher finds of them."""

from __future__ import annotations

import tempfile
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.demo.guide import Guide


def list_again(guide: Guide, home: Path) -> list[str]:
    """List some products a second time, and train a matcher on the others; ids of the second listings."""
    from shopvision import models
    from shopvision.catalogue.importing import Importer, items_kind
    from shopvision.catalogue.picture_addresses import PictureRoot
    from shopvision.catalogue.source_files import Source
    from shopvision.images import PictureDoor, allow_image_root
    from shopvision.matching.fitting.train import train_matcher
    from shopvision.settings import get_settings
    from worker.demo.plans import has_asian_titles
    from worker.demo.relisting import FEWEST_LEARNT, choose_items, matcher_config, relist, write_pairs

    chosen = choose_items()
    if len(chosen.learnt) < FEWEST_LEARNT:
        guide.say(f"no duplicates to find: fewer than {FEWEST_LEARNT} items have title and picture")
        return []
    folder = home / "demo-relisted"
    folder.mkdir(parents=True, exist_ok=True)
    allow_image_root(get_settings(), folder)
    with PictureDoor(get_settings()) as door:
        records = list(relist(chosen.relisted, door, folder))
    Importer(
        items_kind(PictureRoot.parse(str(folder))), Source("relistings", enumerate(records, start=1), lambda: 1.0)
    ).run()
    guide.say(f"listed {len(records)} items again under other titles, with cut pictures")
    guide.say(f"training a matcher on other listings of {len(chosen.learnt)} other items ...")
    with tempfile.TemporaryDirectory() as scratch:
        config = matcher_config(*write_pairs(chosen.learnt, Path(scratch)), asian=has_asian_titles())
        ref, _ = guide.learn(partial(train_matcher, config))
    for role in ("pair_scorer", "pair_blocker"):  # its vectors find candidates as well
        models.activate(role, ref.spec, force=True)
    guide.say(f"{ref.spec} scores pairs now")
    return [record["item_id"] for record in records]


def show_duplicates(guide: Guide, output: Path, job_id: uuid.UUID, relisted: list[str]) -> None:
    """Write the page of a job that scored pairs, and say how many of the listings ``relisted`` it found."""
    from shopvision import models
    from shopvision.matching.groups.page import matching_page, write_report
    from worker.demo.relisting import SUFFIX
    from worker.ledger.progress import job_progress, list_failures

    progress = job_progress(job_id)
    ref = models.find(progress.params["model"])
    page = matching_page(ref.model_version_id, job_id)
    members = [{item.item_id for item in group.items} for group in page.groups]
    found = sum(any({one, one.removesuffix(SUFFIX)} <= group for group in members) for one in relisted)
    wrong = sum(len({one.removesuffix(SUFFIX) for one in group}) > 1 for group in members)
    facts = [("listed twice", f"{len(relisted):,}"), ("found", f"{found:,}"), ("model", ref.spec.partition(":")[0])]
    write_report(output, page, facts=facts, failures=list_failures(job_id, limit=200))
    guide.say(
        f"{found} of {len(relisted)} second listings stand in one group with the first; "
        f"{wrong} groups hold more than one product"
    )
