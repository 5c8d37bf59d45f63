"""What is chosen by measuring: by a clock of the tests' own, so that nothing depends on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.encoders.tuning import Setting, TuningStore, this_machine, tuner, tuning_of
from shopvision.encoders.tuning.comparison import Trial, compare
from shopvision.encoders.tuning.layouts import candidates, measure_layouts
from shopvision.encoders.tuning.picture_trial import made_pictures
from shopvision.encoders.tuning.precision import smallest_cosine, tune_precision
from shopvision.encoders.tuning.record import Rate, Tuning
from shopvision.encoders.tuning.tuner import tune, tune_where_new
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.part import ModelPart
from shopvision.settings import TuningChoice, Way
from tests.unit.encoders.test_tuning_store import tuning

PART = ModelPart("tiny:1", "ab" * 32, "images")
PREPROCESSING = Preprocessing(
    size=(64, 48), crop_fraction=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
)


class Clock:
    """Seconds that pass only when work says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def measure(self, run: Callable[[], None]) -> float:
        before = self.now
        run()
        return self.now - before


class Part:
    """A network that takes so many seconds for an input, by setting."""

    part: ModelPart | None = PART
    unit = "tokens"
    device = torch.device("cpu")
    precision = "float32"
    batches_at_once = 1
    batch_sizes: Sequence[int] = (32, 16, 8, 64)
    ways: Sequence[Way] = ("eager",)

    def __init__(self, clock: Clock, seconds: Callable[[Setting], float]) -> None:
        self.clock, self.seconds = clock, seconds
        self.used: list[TuningChoice] = []

    @property
    def tunable_parts(self) -> tuple[Part, ...]:
        return (self,)

    def trial(self, setting: Setting, work: int) -> Callable[[], None]:
        assert work >= setting.batch_size

        def run() -> None:
            self.clock.now += self.seconds(setting) * work

        return run

    def vectors(self, count: int) -> np.ndarray | None:
        return np.ones((count, 2), np.float32)

    def use(self, chosen: TuningChoice) -> None:
        self.used.append(chosen)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(("fastest", "gain", "expected"), [(8, 1.5, 8), (64, 1.04, 64), (16, 1.02, 32), (8, 0.5, 32)])
def test_another_batch_must_be_clearly_faster_than_the_usual_one(
    clock: Clock, fastest: int, gain: float, expected: int
) -> None:
    part = Part(clock, lambda setting: 0.001 / (gain if setting.batch_size == fastest else 1))
    found = tune(part, 10, measure=clock.measure)
    assert (found.chosen.batch_size, found.steady) == (expected, True)
    assert part.used == [found.chosen]
    assert {rate.setting.batch_size: round(rate.per_second) for rate in found.rates} == {
        size: round(1000 * (gain if size == fastest else 1)) for size in (32, 16, 8, 64)
    }
    assert clock.now <= 10


def test_a_way_is_chosen_together_with_the_batch(clock: Clock) -> None:
    part = Part(clock, lambda setting: 0.001 * setting.batch_size ** (-0.1 if setting.way == "compiled" else 0.1))
    part.ways = ("eager", "compiled")
    chosen = tune(part, 20, measure=clock.measure).chosen
    assert (chosen.batch_size, chosen.way) == (64, "compiled")


def test_a_slow_network_is_measured_less_and_keeps_its_usual_batch(clock: Clock) -> None:
    part = Part(clock, lambda setting: 0.2)  # its usual batch takes 6.4 s
    part.ways = ("eager", "compiled")
    found = tune(part, 20, measure=clock.measure)
    assert found.chosen == TuningChoice(way="eager")
    assert {rate.setting.batch_size for rate in found.rates} == {8}
    assert clock.now <= 20
    very_slow = tune(Part(clock, lambda setting: 5.0), 20, measure=clock.measure)
    assert (very_slow.chosen, very_slow.rates) == (TuningChoice(), ())


def test_a_way_that_there_was_no_time_for_is_not_refused(clock: Clock) -> None:
    part = Part(clock, lambda setting: 0.001 if setting.batch_size == 8 else 0.035)  # slower than it looked
    part.ways = ("eager", "compiled")
    found = tune(part, 15, measure=clock.measure)
    assert {rate.setting.way for rate in found.rates} == {"eager"}
    assert found.chosen.way is None


def test_on_a_machine_that_is_busy_with_other_things_the_usual_settings_stay(clock: Clock) -> None:
    noise: Iterator[float] = iter(np.random.default_rng(0).uniform(0.3, 3.0, 1000).tolist())
    part = Part(clock, lambda setting: 0.001 * next(noise) * (1 if setting.batch_size == 32 else 0.9))
    found = tune(part, 10, measure=clock.measure)
    assert (found.steady, found.chosen) == (False, TuningChoice())
    assert found.rates


def test_a_machine_that_slows_down_meanwhile_slows_all_ways_down(clock: Clock) -> None:
    """The last ways measured are not thought slower: repetitions take turns."""
    start = Setting(batch_size=1, threads=1)

    def trial(size: int, factor: float) -> Trial:
        def run() -> None:
            clock.now += factor * (1 + clock.now / 400)

        return Trial(start.model_copy(update={"batch_size": size}), run, 1)

    found = compare([trial(1, 1.0), trial(2, 1.0), trial(3, 0.9)], 30, measure=clock.measure)
    assert (found.steady, found.best.batch_size) == (True, 3)
    assert compare([trial(1, 1.0), trial(2, 1.0)], 30, measure=clock.measure).best.batch_size == 1


def test_one_lucky_repetition_decides_nothing(clock: Clock) -> None:
    costs = iter([1, 1, 1, 0.5, 1, 0.5, 1, 1.01, 1, 1.01, 1, 0.5, 1, 1])

    def run() -> None:
        clock.now += next(costs)

    settings = [Setting(batch_size=size, threads=1) for size in (1, 2)]
    found = compare([Trial(setting, run, 1) for setting in settings], 100, measure=clock.measure)
    assert found.best.batch_size == 1


def test_what_needs_too_much_memory_is_left_out(clock: Clock) -> None:
    def seconds(setting: Setting) -> float:
        if setting.batch_size == 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0.001

    found = tune(Part(clock, seconds), 10, measure=clock.measure)
    assert {rate.setting.batch_size for rate in found.rates} == {32, 16, 8}


def test_what_was_measured_while_the_machine_was_busy_is_tried_again_the_next_day(tmp_path: Path) -> None:
    store, part = TuningStore(tmp_path / "home"), Part(Clock(), lambda _: 0.001)
    machine = this_machine(torch.get_num_threads())
    for age, steady, expected in ((0, False, False), (2, False, True), (2, True, False)):
        moment = datetime.now(UTC) - timedelta(days=age)
        store.save(tuning(machine=machine).model_copy(update={"steady": steady, "measured_at": moment}))
        assert tuner.is_new(part, store) is expected


def test_stopping_ends_it_and_keeps_nothing(clock: Clock, tmp_path: Path) -> None:
    part = Part(clock, lambda setting: 0.001)
    assert tune_where_new(part, 10, should_stop=lambda: True) == []
    assert TuningStore(tmp_path / "home").all() == []


def test_new_networks_are_measured_once_and_by_one_process(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> None:
    monkeypatch.setattr(tuner, "timed", clock.measure)
    monkeypatch.setattr(tuner.tune, "__kwdefaults__", {**tuner.tune.__kwdefaults__, "measure": clock.measure})
    part = Part(clock, lambda setting: 0.001 / (2 if setting.batch_size == 8 else 1))
    store = TuningStore(tmp_path / "home")
    with store.measuring():
        assert tune_where_new(part, 10) == []
    for seconds, environment in ((0, {}), (10, {"SHOPVISION_FAST_PATHS": "false"})):
        set_environment(**environment)
        assert tune_where_new(part, seconds) == []
    set_environment(SHOPVISION_FAST_PATHS="true")
    [found] = tune_where_new(part, 10)
    assert store.load(PART, this_machine(torch.get_num_threads())) == found
    assert tuning_of(PART, threads=torch.get_num_threads()).batch_size == 8
    assert tune_where_new(part, 10) == []
    part.ways = ("eager", "compiled")  # a package is there by now
    [again] = tune_where_new(part, 10)
    assert {rate.setting.way for rate in again.rates} == {"eager", "compiled"}
    assert tune_where_new(object(), 10) == []


def test_what_was_measured_is_used_unless_the_settings_say_otherwise(
    clock: Clock, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_TUNING='{"tiny": {"batch_size": 5}}')
    part = Part(clock, lambda setting: 0.001 / (2 if setting.batch_size == 8 else 1))
    assert tune(part, 10, measure=clock.measure).chosen.batch_size == 8
    assert [used.batch_size for used in part.used] == [5]


def encoder() -> ImageEncoder:
    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=0).eval()
    return ImageEncoder(
        network, PREPROCESSING, network.num_features, device=torch.device("cpu"), dtype=torch.float32, part=PART,
        compile_mode="never",
    )  # fmt: skip


def test_a_measured_encoder_gives_the_vectors_of_a_plain_one(set_environment: Callable[..., None]) -> None:
    plain, tuned = encoder(), encoder()
    [found] = tune_where_new(tuned, 0.5)
    assert found.part == "images"
    pictures = made_pictures(9, PREPROCESSING)
    sizes = {tuned.batch_size, encoder().batch_size, 4}
    for size in sizes:
        parts = [tuned.encode(pictures[start : start + size]) for start in range(0, 9, size)]
        assert smallest_cosine(np.concatenate(parts), plain.encode(pictures)) > 0.9999
    tuned.use(TuningChoice(batch_size=16, decoding_threads=2))
    assert (tuned.batch_size, tuned.decoding_threads) == (16, 2)
    for setting in (
        Setting(batch_size=4, threads=1),
        Setting(batch_size=4, threads=1, decoding_threads=2),
    ):
        tuned.trial(setting, 8)()


def rated(threads: int, replicas: int, per_second: float) -> Tuning:
    setting = Setting(batch_size=32, threads=threads, replicas=replicas)
    machine = tuning().machine.model_copy(update={"threads": threads})
    rate = Rate(setting=setting, per_second=per_second, scatter=0.0)
    return tuning(machine=machine, batch_size=32).model_copy(update={"rates": (rate,)})


@pytest.mark.parametrize(("one_process", "expected"), [(240.0, (2, 1)), (205.0, (1, 2)), (150.0, (1, 2))])
def test_threads_and_processes_are_chosen_by_what_they_do_together(
    one_process: float, expected: tuple[int, int]
) -> None:
    rates = {(1, 2): [100.0, 100.0], (2, 1): [one_process]}
    found = measure_layouts(
        [(1, 2), (2, 1)], lambda layout: [[rated(*layout, per_second=rate)] for rate in rates[layout]]
    )
    assert {one.machine.threads for one in found} == {1, 2}
    assert {one.layout for one in found} == {expected}


def test_layouts_share_the_cores_out() -> None:
    assert candidates(2, (1, 2), 8) == [(1, 2), (2, 1)]
    assert candidates(1, (1, 1), 8) == [(1, 1)]
    assert candidates(64, (8, 8), 8) == [(8, 8), (64, 1), (32, 2), (16, 4)]
    assert all(threads * replicas <= 6 for threads, replicas in candidates(6, (2, 3), 8))


@pytest.mark.parametrize(
    ("agrees", "gain", "expected"),
    [(True, 2.0, "bfloat16"), (True, 0.5, "float32"), (True, 0.99, "bfloat16"), (False, 2.0, "float32")],
)
def test_a_shorter_precision_is_taken_where_it_is_no_slower_and_agrees(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, agrees: bool, gain: float, expected: str
) -> None:
    short = Part(clock, lambda setting: 0.001 / gain)
    exact = Part(clock, lambda setting: 0.001)
    short.precision = "bfloat16"
    if not agrees:
        short.vectors = lambda count: np.tile(np.float32([1.0, 1.2]), (count, 1))  # cosine 0.9959
    monkeypatch.setattr("shopvision.models.load", lambda spec, precision: exact)
    [found] = tune_precision("tiny:1", short, [rated(1, 1, 1000.0)], 10, measure=clock.measure)
    assert found.chosen.precision == expected
    assert found.agreement == pytest.approx(1.0 if agrees else 2.2 / (2**0.5 * 2.44**0.5))
    assert {rate.setting.precision for rate in found.rates[1:]} == {"bfloat16", "float32"} or gain != 2.0


def test_vectors_that_are_not_finite_agree_with_nothing() -> None:
    good = np.ones((2, 3), np.float32)
    assert smallest_cosine(good, good) == pytest.approx(1.0)
    assert smallest_cosine(good, np.float32([[1, 1, 1], [np.nan, 1, 1]])) == -1.0
