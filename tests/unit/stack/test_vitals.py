"""When a worker is ready, and when it should give up."""

from __future__ import annotations

from worker.health import DEAF_SECONDS, HUNG_SECONDS, READY_SECONDS, Vitals


def working(now: float = 1000.0) -> Vitals:
    vitals = Vitals(ticked=now, consuming=True, database=now)
    vitals.note_broker(now, answered=True, idle_with_work=False)
    return vitals


def test_ready_needs_broker_database_and_consuming() -> None:
    vitals = Vitals(ticked=0.0)
    assert vitals.missing(0.0) == ["not consuming", "no contact with the broker", "no contact with the database"]
    vitals = working()
    assert vitals.missing(1000.0 + READY_SECONDS) == []
    vitals.database = 1010.0
    assert vitals.missing(1001.0 + READY_SECONDS) == ["no contact with the broker"]
    vitals.stopping = True
    assert "not consuming" in vitals.missing(1000.0)


def test_gives_up_when_the_event_loop_hangs() -> None:
    vitals = working()
    assert vitals.reason_to_give_up(1000.0 + HUNG_SECONDS) is None
    assert "event loop" in str(vitals.reason_to_give_up(1001.0 + HUNG_SECONDS))


def test_stands_still_in_peace_while_the_broker_is_away() -> None:
    vitals = working()
    vitals.note_broker(1005.0, answered=False, idle_with_work=False)
    assert vitals.reason_to_give_up(1e6) is None
    # Back again: the loop gets its time anew, as it may sleep until its next try.
    vitals.note_broker(1e6, answered=True, idle_with_work=False)
    assert vitals.reason_to_give_up(1e6 + HUNG_SECONDS) is None
    assert vitals.reason_to_give_up(1e6 + HUNG_SECONDS + 1) is not None


def test_a_warm_shutdown_takes_the_time_it_needs() -> None:
    vitals = working()
    vitals.stopping = True
    assert vitals.reason_to_give_up(1e6) is None


def test_gives_up_when_messages_wait_and_nothing_is_done() -> None:
    vitals = working()
    for second in range(0, int(DEAF_SECONDS) + 10, 5):
        now = vitals.ticked = 1000.0 + second
        vitals.note_broker(now, answered=True, idle_with_work=True)
        assert (vitals.reason_to_give_up(now) is None) == (second <= DEAF_SECONDS)
    vitals.note_broker(vitals.ticked, answered=True, idle_with_work=False)
    assert vitals.reason_to_give_up(vitals.ticked) is None


def test_a_worker_that_starts_is_not_deaf() -> None:
    vitals = Vitals(ticked=0.0)
    vitals.note_broker(0.0, answered=True, idle_with_work=True)
    vitals.ticked = DEAF_SECONDS + 1
    vitals.note_broker(vitals.ticked, answered=True, idle_with_work=True)
    assert vitals.reason_to_give_up(vitals.ticked) is None
