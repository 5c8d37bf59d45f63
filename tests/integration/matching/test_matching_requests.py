"""What a matching job is to do: rows that its chunks name by number, from splitting to the end of the job."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import delete, select, text, update

from shopvision.database import connect
from shopvision.errors import JobError
from shopvision.matching import requested_pairs, requests
from shopvision.matching.tables import MatchingRequest
from tests.integration.matching.scoring_shop import TITLES, ScoringShop, count, expected
from worker.kinds import get_kind
from worker.ledger import jobs
from worker.ledger.deaths import record_death
from worker.ledger.leases import claim
from worker.ledger.progress import job_progress, list_failures
from worker.ledger.tables import Chunk, Job
from worker.retention import prune


def chunk_keys(job_id: uuid.UUID) -> list[str]:
    with connect() as connection:
        chunks = connection.scalars(select(Chunk.item_keys).where(Chunk.job_id == job_id).order_by(Chunk.chunk_id))
        return [key for keys in chunks for key in keys]


def codes(job_id: uuid.UUID) -> dict[str, str]:
    return {failure["item_key"]: failure["code"] for failure in list_failures(job_id, limit=50)}


def test_keys_are_numbers_and_nothing_is_left_at_the_end(shop: ScoringShop) -> None:
    path = shop.folder / "pairs.csv"
    path.write_text("left_id,right_id\na,b\nx,x\nx,ghost\n")
    job = shop.run(pairs_file=str(path))
    keys = chunk_keys(job.job_id)
    assert len(keys) == 3
    assert all(key.isdecimal() for key in keys)
    assert codes(job.job_id) == {"row 3": "same_item", "row 4": "unknown_item"}
    assert count(MatchingRequest) == 0


def test_a_retry_reads_the_rows_of_the_file_as_they_are_now(shop: ScoringShop) -> None:
    path = shop.folder / "pairs.csv"
    path.write_text("left_id,right_id\na,b\nx,x\nx,new\ny,z\n")
    job = shop.run(pairs_file=str(path))
    assert (job.done, job.failed) == (2, 2)
    path.write_text("left_id,right_id\na,b\nx,y\nx,new\ny,z\n")
    retry = jobs.retry_failed(job.job_id)
    shop.work()
    assert (job_progress(retry).done, codes(retry)) == (1, {"row 4": "unknown_item"})
    assert shop.scores() == expected("ab", "xy", "yz")
    assert set(shop.jobs_of_scores().values()) == {job.job_id, retry}
    path.unlink()
    again = jobs.retry_failed(retry)
    shop.work()
    assert "there is no such file" in str(job_progress(again).error)


def test_a_retry_takes_up_items_and_pairs_by_their_names(bare_shop: ScoringShop) -> None:
    shop = bare_shop
    ids = ["[a]", "row 7", "plain", '"quoted"']
    for item_id in ids:
        shop.put(item_id, "")
    path = shop.folder / "pairs.csv"
    path.write_text("left_id,right_id\n[a],plain\nrow 7,plain\n")
    of_pairs, of_items = shop.run(pairs_file=str(path)), shop.run(item_ids=ids)
    assert codes(of_pairs.job_id) == {'["[a]","plain"]': "no_text", '["plain","row 7"]': "no_text"}
    assert set(codes(of_items.job_id)) == {'["[a]"]', '["row 7"]', "plain", '"quoted"'}
    for item_id in ids:
        shop.put(item_id, "Acme drill DX100")
    for job, items, pairs in ((of_items, 4, 0), (of_pairs, 0, 2)):
        before = shop.blocker.items, shop.scorer.pairs
        retry = jobs.retry_failed(job.job_id)
        shop.work()
        assert (job_progress(retry).done, job_progress(retry).failed) == (items + pairs, 0)
        assert (shop.blocker.items - before[0], shop.scorer.pairs - before[1]) == (items, pairs)
    assert count(MatchingRequest) == 0


@pytest.mark.usefixtures("database")
def test_whoever_splits_a_job_again_disturbs_nobody() -> None:
    """A worker that was thought dead goes on splitting, and leaves before it is done."""
    job_id = uuid.uuid4()
    first = list(requested_pairs.items_to_read(job_id, ["a", "b", "b"]))
    late = requested_pairs.items_to_read(job_id, ["c", "d"])
    next(late)
    second = list(requested_pairs.items_to_read(job_id, ["a", "e"]))
    assert len({*first, *second}) == 4
    assert requests.read(job_id, first).items == dict(zip("ab", first, strict=True))
    late.close()
    assert requests.read(job_id, second).items == dict(zip("ae", second, strict=True))
    assert requests.forget(job_id) == 4
    assert requests.name_of(job_id, first[0]) == first[0]
    with pytest.raises(JobError, match=r"2 of the 2 rows of this chunk are gone: submit the job once more"):
        requests.read(job_id, first)
    with pytest.raises(JobError, match=r"1 of the 1 rows"):
        requests.read(job_id, ['["a","b"]'])  # as older versions wrote them


def test_a_pair_that_ends_its_workers_is_called_by_its_ids(
    shop: ScoringShop, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_DEATHS_BEFORE_SPLIT="1")
    path = shop.folder / "pairs.csv"
    path.write_text("left_id,right_id\nb,a\nx,y\n")
    job_id = shop.submit(pairs_file=str(path))
    shop.work(limit=2)  # both splits: of a file, the first has nothing to do
    while "poison" not in codes(job_id).values():
        with connect() as connection:
            chunk_id = connection.scalars(
                select(Chunk.chunk_id)
                .where(Chunk.job_id == job_id, Chunk.phase == "chunk", Chunk.state == "ready")
                .order_by(Chunk.chunk_id)
            ).first()
        assert chunk_id is not None
        lease = claim(chunk_id, "test@here")
        assert lease is not None
        record_death(chunk_id, "it died", attempt=lease.attempt)
    shop.work()
    assert codes(job_id) == {'["a","b"]': "poison"}
    assert shop.scores() == expected("xy")


def test_rows_go_with_the_job_that_cannot_be_resumed_any_more(shop: ScoringShop) -> None:
    path = shop.folder / "pairs.csv"
    path.write_text("left_id,right_id\na,b\nx,y\n")
    job_id = shop.submit(pairs_file=str(path))
    while not count(MatchingRequest):
        shop.work(limit=1)
    jobs.cancel(job_id)
    assert prune()["matching_requests"] == 0
    jobs.resume(job_id)
    shop.work()
    assert (job_progress(job_id).state, job_progress(job_id).done) == ("succeeded", 2)
    orphan = uuid.uuid4()
    assert len(list(requested_pairs.items_to_read(orphan, TITLES))) == 6
    late = list(requested_pairs.items_to_read(job_id, "ab"))  # splits a job that came to its end meanwhile
    running = shop.submit()
    assert len(list(requested_pairs.items_to_read(running, "xy"))) == len(late) == 2
    assert requests.jobs_with_rows() == sorted([orphan, job_id, running])
    assert prune()["matching_requests"] == 8
    assert requests.jobs_with_rows() == [running]
    with connect() as connection:
        ended = {"state": "cancelled", "finished_at": text("'2020-01-01'")}
        connection.execute(update(Job).where(Job.job_id == running).values(ended))
        connection.execute(delete(Chunk).where(Chunk.job_id == running))
    assert prune()["matching_requests"] == 2
    assert count(MatchingRequest) == 0


def test_names_of_other_kinds_are_their_keys() -> None:
    assert get_kind("rank_plans").name_of(uuid.uuid4(), "plan-1") == "plan-1"
