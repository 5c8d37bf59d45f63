"""The loop: learning rates, best epoch, resume to the byte, and clear refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shopvision.errors import JobError, UserError
from shopvision.training.checkpointing import Checkpoints, load_checkpoint, require_fresh
from shopvision.training.config import FitConfig, load_config
from shopvision.training.distributed import joined
from shopvision.training.loop import FitResult, fit, learning_rate_factor, step_seed
from shopvision.training.precision import MixedPrecision
from shopvision.training.run import TrainingProgress, TrainingRun


class Regression:
    """Learns y = Wx with dropout, so that a run depends on the random numbers of every step."""

    steps_per_epoch = 3

    def __init__(self, scores: tuple[float, ...] = ()) -> None:
        torch.manual_seed(5)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.scores = iter(scores)

    def parameter_groups(self) -> list[dict[str, Any]]:
        first, _, last = self.network
        return [
            {"name": "first", "params": list(first.parameters()), "lr": 0.01},
            {"name": "last", "params": list(last.parameters()), "lr": 0.1},
        ]

    def batches(self, epoch: int) -> Iterator[Tensor]:
        rng = np.random.default_rng([9, epoch])
        for _ in range(self.steps_per_epoch):
            yield torch.from_numpy(rng.standard_normal((6, 4), np.float32))

    def gradients(self, batch: Tensor, precision: MixedPrecision) -> dict[str, Tensor]:
        with precision.autocast():
            loss = (self.network(batch)[:, 0].float() - batch.sum(1)).square().mean()
        precision.scale(loss).backward()
        return {"loss": loss.detach()}

    def evaluate(self) -> dict[str, float]:
        return {"mrr": next(self.scores, 0.5), "loss": 1.0}

    def tensors(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(dict(tensors))


def run(learner: Regression, output: Path, *, resume: bool = False, stop_after: int = 0, **config: Any) -> FitResult:
    def stop(progress: TrainingProgress) -> None:
        if progress.epoch == stop_after + 1 and stop_after:
            raise KeyboardInterrupt

    return fit(
        learner,
        FitConfig(**{"epochs": 4, "warmup_fraction": 0.2} | config),
        TrainingRun(output=output, resume=resume, on_progress=stop),
        identity={"config": config, "data": "d1"},
    )


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    straight = Regression()
    run(straight, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(Regression(), tmp_path / "resumed", stop_after=2)
    torch.manual_seed(77)  # another process starts with another random state
    resumed = Regression()
    run(resumed, tmp_path / "resumed", resume=True)
    for file in ("checkpoints/epoch-0004/model.safetensors", "checkpoints/best.safetensors", "metrics.jsonl"):
        assert (tmp_path / "straight" / file).read_bytes() == (tmp_path / "resumed" / file).read_bytes()
    assert not torch.equal(resumed.network[0].weight, Regression().network[0].weight)


def test_a_resumed_run_does_not_repeat_what_it_logged(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Regression(), tmp_path, stop_after=2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "split": "train", "step": 7}\n{"epo')  # killed while writing
    run(Regression(), tmp_path, resume=True)
    assert [(line["split"], line["epoch"]) for line in lines(tmp_path)] == [
        (split, epoch) for epoch in range(1, 5) for split in ("train", "valid")
    ]


def test_a_file_is_no_folder_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file: name a folder for the run"):
        run(Regression(), tmp_path / "file")
    with pytest.raises(UserError, match=r"file/run cannot be made \(Not a directory\): choose another --output"):
        run(Regression(), tmp_path / "file" / "run")


def test_a_folder_without_rights_is_told_before_anything_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != tmp_path)  # the tests may run as root
    with pytest.raises(UserError, match=r"a/run cannot be made \(Permission denied\): choose another --output"):
        require_fresh(tmp_path / "a" / "run", resume=False)
    assert not (tmp_path / "a").exists()


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    learner = Regression(scores=(0.0, 0.1, 0.4, 0.3, 0.4))  # the first is looked at before training
    result = run(learner, tmp_path, select_by="mrr")
    assert (result.best_epoch, result.metrics["mrr"]) == (2, 0.4)
    last, state = load_checkpoint(Checkpoints(tmp_path).latest())  # type: ignore[arg-type] # there is one
    assert (state["epoch"], state["best"]["epoch"]) == (4, 2)
    assert not torch.equal(last["0.weight"], learner.network[0].weight)


def test_learning_rates_rise_and_follow_a_cosine(tmp_path: Path) -> None:
    factors = [learning_rate_factor(step, 12, 3) for step in range(12)]
    assert factors[:4] == [1 / 3, 2 / 3, 1.0, 1.0]
    np.testing.assert_allclose(factors[3:], [(1 + math.cos(math.pi * k / 9)) / 2 for k in range(9)])
    run(Regression(), tmp_path)
    train = [line for line in lines(tmp_path) if line["split"] == "train"]
    assert train[0]["lr_first"] == pytest.approx(0.01 * factors[2])
    assert train[-1]["lr_last"] == pytest.approx(0.1 * factors[-1])


def test_learning_rates_can_fall_in_a_line() -> None:
    factors = [learning_rate_factor(step, 12, 3, "linear") for step in range(12)]
    np.testing.assert_allclose(factors, [1 / 3, 2 / 3, 1, *(1 - k / 9 for k in range(9))])


def test_long_gradients_are_shortened_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    step = torch.optim.AdamW.step

    def spy(optimizer: torch.optim.AdamW, *arguments: Any) -> Any:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        lengths.append(math.sqrt(sum(weight.grad.double().square().sum().item() for weight in weights)))
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(Regression(), tmp_path, epochs=1, clip_norm=0.01)
    assert lengths == pytest.approx([0.01] * 3, rel=1e-3)
    assert lines(tmp_path)[0]["gradient_norm"] > 0.1  # as long as they were


def test_a_group_may_have_its_own_weight_decay(tmp_path: Path) -> None:
    class Still(Regression):
        """Its gradients are zero, so that only the decay moves the weights."""

        def parameter_groups(self) -> list[dict[str, Any]]:
            first, last = super().parameter_groups()
            return [{**first, "weight_decay": 0.0}, last]

        def gradients(self, batch: Tensor, precision: MixedPrecision) -> dict[str, Tensor]:
            loss = 0.0 * self.network(batch).sum()
            loss.backward()
            return {"loss": loss.detach()}

    learner, before = Still(), Still()
    run(learner, tmp_path, epochs=1, weight_decay=0.5)
    assert torch.equal(learner.network[0].weight, before.network[0].weight)
    assert learner.network[2].weight.norm() < before.network[2].weight.norm()


def test_every_epoch_can_be_kept(tmp_path: Path) -> None:
    fit(Regression(), FitConfig(epochs=3), TrainingRun(output=tmp_path), identity={}, keep_epochs=True)
    kept = Checkpoints(tmp_path).epochs()
    assert [path.parent.name for path in kept] == ["epoch-0001", "epoch-0002", "epoch-0003"]
    assert len({path.read_bytes() for path in kept}) == 3
    assert [path.name for path in sorted(kept[0].parent.iterdir())] == ["model.safetensors"]


def test_seeds_of_neighbouring_places_differ() -> None:
    seeds = {step_seed(27, epoch, step, rank) for epoch in range(4) for step in range(4) for rank in range(4)}
    assert len(seeds) == 64


def test_mistakes_before_work_begins(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'"f1" is unknown; there are mrr, loss and last'):
        run(Regression(), tmp_path, select_by="f1")
    run(Regression(), tmp_path)
    with pytest.raises(UserError, match="continue it with --resume"):
        run(Regression(), tmp_path)
    with pytest.raises(UserError, match=r"config\.seed differs from the interrupted run"):
        run(Regression(), tmp_path, resume=True, seed=1)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    learner = Regression()
    learner.network[0].weight.data.fill_(math.inf)
    with pytest.raises(JobError, match="The loss is nan in epoch 1, step 3: lower"):
        run(learner, tmp_path)
    assert Checkpoints(tmp_path).latest() is None


def test_a_crash_while_saving_leaves_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"w": torch.ones(2)}, {"epoch": 1})
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            checkpoints.save(2, {"w": torch.zeros(2)}, {"epoch": 2})
    latest = checkpoints.latest()
    assert latest is not None
    assert load_checkpoint(latest)[1] == {"epoch": 1}
    checkpoints.save(2, {"w": torch.zeros(2)}, {"epoch": 2})
    assert [path.name for path in sorted(checkpoints.folder.iterdir())] == ["epoch-0002"]
    (checkpoints.folder / "epoch-0002/state.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"state\.pt is damaged"):
        load_checkpoint(checkpoints.folder / "epoch-0002")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 0", "epochs: Input should be greater than or equal to 1."),
        ("epoch = 3", "epoch is unknown; there are epochs, weight_decay, warmup_fraction, decay, clip_norm, "),
        ("epochs = ", "is not TOML: Invalid value"),
    ],
)
def test_configuration_mistakes_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "c.toml", FitConfig)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path / "none.toml", FitConfig)


@pytest.mark.parametrize(("name", "said"), [("nonsense", "is unknown: use cpu, cuda"), ("cuda", "sees no GPU")])
def test_a_device_that_is_not_there(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=said), joined(name):
        pass
