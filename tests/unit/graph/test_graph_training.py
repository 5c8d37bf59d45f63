"""Learning the vectors of a knowledge graph: a step by hand, a graph that can be learnt, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.errors import JobError, UserError
from shopvision.graph.card import find_graph, load_graph
from shopvision.graph.config import GraphConfig
from shopvision.graph.learner import GraphStep
from shopvision.graph.train import make_learner, read_graph, train_graph
from shopvision.models.importers import fetch
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.precision import MixedPrecision
from shopvision.training.run import TrainingProgress, TrainingRun
from tests.unit.graph.test_knowledge_graph import graph_of


def write_graph(path: Path, count: int = 400) -> Path:
    graph = graph_of(count)
    rows = [
        {"head": graph.entities[head], "relation": graph.relations[relation], "tail": graph.entities[tail]}
        for head, relation, tail in graph.triples.tolist()
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def config(path: Path, **train: Any) -> GraphConfig:
    settled = {"epochs": 10, "batch_size": 128, "lr": 0.6, "asked": 100} | train
    return GraphConfig.model_validate(
        {"data": {"triples": str(path), "held_out": 0.05}, "model": {"dimension": 32}, "train": settled}
    )


@pytest.fixture(scope="module")
def triples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("graph") / "triples.jsonl")


@pytest.fixture(scope="module")
def run(triples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    train_graph(config(triples), TrainingRun(output=output))
    return output


def test_a_step_by_hand(triples: Path, tmp_path: Path) -> None:
    settled = config(triples)
    learner = make_learner(read_graph(settled.data), settled, TrainingRun(output=tmp_path))
    learner.network.double()
    # Right: (0, r0, 2). Wrong: (0, r0, 3), (1, r0, 2), (0, r1, 2), and one that is none.
    heads, relations, tails = torch.tensor([[0, 0, 2], [0, 0, 3], [1, 0, 2], [0, 1, 2], [1, 1, 3]]).T
    entities = torch.tensor([4, 9, 17, 30])
    step = GraphStep(entities, heads, relations, tails, torch.zeros(4, dtype=torch.int64), torch.tensor([1.0, 1, 1, 0]))
    loss = learner.gradients(step, MixedPrecision("float32", torch.device("cpu")))["loss"]

    e = learner.network.entities.detach().numpy()[entities.numpy()]
    r, m = learner.network.relations.detach().numpy(), learner.network.matrix.detach().numpy()

    def distance(head: int, relation: int, tail: int) -> float:
        told = e[head] + r[relation] - e[tail]
        return float(told @ told + np.square(m @ e[head] - r[relation]).sum())

    right = distance(0, 0, 2)
    wrong = [distance(*triple) for triple in ((0, 0, 3), (1, 0, 2), (0, 1, 2))]
    assert float(loss) == pytest.approx(sum(max(0.0, 1 + right - one) for one in wrong) / 3, rel=1e-12)
    gradient = learner.network.entities.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert gradient.indices()[0].tolist() == entities.tolist()
    # Moving entity 3, a wrong tail alone: the derivative of -|h + r - t|^2 / 3 where it counts.
    counts = 1 + right - wrong[0] > 0
    np.testing.assert_allclose(gradient.values()[3].numpy(), counts * 2 / 3 * (e[0] + r[0] - e[3]), rtol=1e-9)


def test_what_is_drawn_as_wrong_knows_nothing_of_what_is_held_out(triples: Path, tmp_path: Path) -> None:
    settled = config(triples, relation_negatives=0.4, negatives=1)
    learner = make_learner(read_graph(settled.data), settled, TrainingRun(output=tmp_path))
    step = learner.step_of(learner._triples, np.random.default_rng(1))
    right, wrong = step.relations.chunk(2)
    assert float((right != wrong).double().mean()) == pytest.approx(0.4, abs=0.03)
    assert learner._corruption.are_known(learner._triples).all()
    assert not learner._corruption.are_known(learner.task.asked).any()


def test_what_follows_is_learnt_and_what_does_not_is_not(run: Path, triples: Path) -> None:
    graph = load_graph(run / "model")
    metrics = graph.card.metrics
    assert metrics["random_mrr"] < 0.2
    # Of 36 values; a fifth of the triples is a maker among 20, about which nothing is known.
    assert metrics["mrr"] > 0.5
    assert metrics["hits_10"] > 0.75
    np.testing.assert_allclose(graph.vectors.entities.norm(dim=1).numpy(), 1, rtol=1e-5)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    assert graph.card.training_data.startswith("triples.jsonl, 2,000 triples, content sha256 ")
    # Kinds that go with a colour lie where items, moved by the relation, are.
    row = {name: number for number, name in enumerate(graph.entities)}
    relation = {name: number for number, name in enumerate(graph.relations)}
    vectors = graph.vectors
    kinds = [row[f"/value/kind {kind}"] for kind in range(4)]
    said = graph_of().triples
    names = graph_of()
    items, found = [], []
    for head, of, tail in said.tolist():
        if names.relations[of] == "colour":
            items.append(row[names.entities[head]])
            found.append(int(names.entities[tail].removeprefix("/value/colour ")) // 2)
    near = (vectors.entities[items] + vectors.relations[relation["kind"]]) @ vectors.entities[kinds].T
    assert (near.argmax(1).numpy() == np.array(found)).mean() > 0.9


def test_a_resumed_run_ends_with_the_same_bytes(triples: Path, tmp_path: Path) -> None:
    settled = config(triples, epochs=3)

    def stop(progress: TrainingProgress) -> None:
        if progress.epoch == 3:
            raise KeyboardInterrupt

    train_graph(settled, TrainingRun(output=tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        train_graph(settled, TrainingRun(output=tmp_path / "resumed", on_progress=stop))
    train_graph(settled, TrainingRun(output=tmp_path / "resumed", resume=True))
    straight, resumed = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("straight", "resumed"))
    assert straight == resumed


def test_training_ends_where_nothing_gets_better(triples: Path, tmp_path: Path) -> None:
    report = train_graph(config(triples, epochs=40, lr=1e-12, patience=2), TrainingRun(output=tmp_path))
    assert report.best_epoch == 1
    epochs = {json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()}
    assert epochs == {1, 2, 3}
    told = report.report()
    assert told.metrics["hits_10"].random == pytest.approx(10 / 36, abs=0.02)
    assert told.counts["held-out triples"] == report.asked == 100


def test_what_is_refused_before_anything_is_learnt(triples: Path, tmp_path: Path, run: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps({"item_id": str(row), "title": "a"}) + "\n" for row in range(20)))
    bare = GraphConfig.model_validate({"data": {"items": str(items)}})
    with pytest.raises(UserError, match="The graph has 0 triples: give 10 or more"):
        train_graph(bare, TrainingRun(output=tmp_path / "a"))
    lonely = tmp_path / "lonely.csv"
    lonely.write_text("head,relation,tail\n" + "".join(f"{row},colour,c{row}\n" for row in range(20)))
    with pytest.raises(UserError, match="Of 20 triples none can be held out: each is all that is said of an item"):
        train_graph(config(lonely), TrainingRun(output=tmp_path / "b"))
    two = TrainingRun(output=tmp_path / "c", process=Process(0, 2))
    with pytest.raises(UserError, match="start it without torchrun"):
        train_graph(config(triples), two)
    assert not any((tmp_path / name).exists() for name in "abc")
    both = tmp_path / "both.toml"
    both.write_text('[data]\nitems = "a"\ntriples = "b"\n')
    with pytest.raises(UserError, match="give items or triples, one of the two"):
        load_config(both, GraphConfig)
    with pytest.raises(UserError, match="nowhere is no folder: name what `shopvision train graph` made"):
        find_graph("nowhere")
    names = run / "model" / "names.json"
    before = names.read_text()
    try:
        names.write_text(json.dumps({"entities": ["/item/1"], "relations": []}))
        with pytest.raises(JobError, match="names 1 entities, the model has 436: import it again"):
            load_graph(run / "model")
    finally:
        names.write_text(before)


def test_the_example_file_shows_every_field_with_its_default() -> None:
    path = Path(__file__).parents[3] / "docs" / "examples" / "graph.toml"
    settled = load_config(path, GraphConfig)
    shown = {line.lstrip("# ").split(" = ")[0] for line in path.read_text().splitlines() if " = " in line}
    for section in (settled.data, settled.model, settled.train):
        assert set(type(section).model_fields) <= shown
    assert settled == GraphConfig.model_validate({"data": {"items": "items.jsonl"}})


# -- the published files ----------------------------------------------------------------------------------------------


def published(folder: Path, prefix: str = "", **more: Any) -> Path:
    """As the published training writes them: rows of entities not quite of unit length between two epochs."""
    torch.manual_seed(4)
    shapes = {"ent_emb.weight": (5, 3), "rel_emb.weight": (3, 3), "proj_mat.weight": (3, 3)}
    tables = {name: 2 * torch.randn(shape) for name, shape in shapes.items()}
    folder.mkdir(exist_ok=True)
    torch.save({prefix + name: table for name, table in tables.items()} | more, folder / "pkgm.bin")
    names = ["/item/a", "/value/Red", "/item/b", "/value/shoe-7", "/value/x\ty"]
    lines = [f"{name}\t{number}\n" for number, name in enumerate(names)]
    (folder / "entity2id.txt").write_text("".join(reversed(lines)))
    (folder / "relation2id.txt").write_text("[PAD]\t0\nColour\t1\nkind\t2\n")
    return folder / "pkgm.bin"


def bring(file: Path, output: Path, **options: str) -> Any:
    given = {"entities": str(file.parent / "entity2id.txt"), "relations": str(file.parent / "relation2id.txt")}
    return fetch(f"pkgm:{file}", output, {name: value for name, value in (given | options).items() if value})


@pytest.mark.parametrize("prefix", ["", "embeddings."])
def test_both_published_layouts_are_read(tmp_path: Path, prefix: str) -> None:
    file = published(tmp_path, prefix)
    card = bring(file, tmp_path / "model")
    assert (card.kind, card.source, card.dimension) == ("knowledge_graph", "pkgm:pkgm.bin", 3)
    graph = load_graph(tmp_path / "model")
    assert graph.entities == ("/item/a", "/value/Red", "/item/b", "/value/shoe-7", "/value/x\ty")
    assert graph.relations == ("[PAD]", "Colour", "kind")
    # The published score: heads and tails of unit length, the relation as it is, one matrix without bias.
    torch.manual_seed(4)
    raw, relations, matrix = (2 * torch.randn(rows, 3).double() for rows in (5, 3, 3))
    e = raw / raw.norm(dim=1, keepdim=True)
    expected = (e[2] + relations[1] - e[3]).square().sum() + (matrix @ e[2] - relations[1]).square().sum()
    assert float(graph.vectors.distances(torch.tensor([[2, 1, 3]]))[0]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("more", "options", "error", "message"),
    [
        ({}, {"entities": ""}, UserError, "give `--option entities=entity2id.txt`"),
        ({"extra.weight": torch.zeros(2)}, {}, JobError, "'extra.weight' is not in the architecture"),
        ({"ent_emb.weight": torch.zeros(4, 3)}, {}, UserError, "entity2id.txt names 5 rows, the vectors have 4"),
        ({"proj_mat.weight": torch.zeros(2, 3)}, {}, JobError, "'matrix' has the shape"),
        ({"rel_emb.weight": torch.zeros(2)}, {}, UserError, "it has no table of relations"),
        ({}, {"relations": "entity2id.txt"}, UserError, "cannot be read"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, more: dict[str, Any], options: dict[str, str], error: type[Exception], message: str
) -> None:
    file = published(tmp_path, **more)
    with pytest.raises(error, match=message):
        bring(file, tmp_path / "model", **options)
