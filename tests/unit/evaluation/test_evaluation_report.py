"""The shape that every evaluation is told in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import Measured
from shopvision.evaluation.plots import _dots, plot_evaluation
from shopvision.evaluation.report import EvaluationReport, Part, without_interval
from shopvision.evaluation.report_files import write_report
from worker.cli.output import emit_report

REPORT = EvaluationReport(
    name="matcher:1",
    data="pairs of May",
    counts={"pairs": 1200, "positives": 30, "left out": 0},
    metrics={"f1": Measured(0.75, 0.7, 0.8, 0.1, 1200), "recall": Measured(math.nan, math.nan, math.nan, 0.5, 0)},
    parts=[Part("category", "[/b] <Shoes>", without_interval({"f1": 0.5, "recall": 0.25}, 40), shown=["f1"])],
    facts={"thresholds": {"same": 0.9}, "epoch": 3},
    notes=["Look at the random column [first]."],
)


def test_rows_show_what_is_known() -> None:
    assert REPORT.title == "matcher:1 on 1,200 pairs, 30 positives"
    assert REPORT.rows() == [
        ("f1", "0.7500", "0.7000 - 0.8000", "0.1000", 1200),
        ("recall", None, None, "0.5000", 0),
        ("category [/b] <Shoes>: f1", "0.5000", None, None, 40),
    ]
    assert REPORT.fact_rows() == [("thresholds: same", "0.9000"), ("epoch", "3")]


def test_terminal_json_and_page_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    emit_report(REPORT, as_json=False)
    shown = capsys.readouterr().out
    emit_report(REPORT, as_json=True, more={"activated": False})
    told = json.loads(capsys.readouterr().out)
    write_report(tmp_path, REPORT)
    page = (tmp_path / "report.html").read_text()
    for row in REPORT.rows():
        for cell in filter(None, row):
            assert str(cell) in shown
    assert "Look at the random column [first]." in shown
    assert "category [/b] &lt;Shoes&gt;: f1</td><td>0.5000</td><td>\N{EN DASH}</td>" in page
    assert "1,200 pairs, 30 positives" in page
    assert told == REPORT.as_dict() | {"activated": False}
    assert told["metrics"]["recall"]["value"] is None
    assert told["parts"][0]["metrics"]["recall"]["value"] == 0.25
    assert json.loads((tmp_path / "metrics.json").read_text()) == REPORT.as_dict()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone/metrics\.json cannot be written"):
        write_report(tmp_path / "gone", REPORT)
    with pytest.raises(UserError, match=r"gone/metrics\.png cannot be written"):
        plot_evaluation(tmp_path / "gone" / "metrics.png", "title", REPORT.metrics, {}, "F1", units="pairs")


def test_the_legend_names_chance_only_where_it_is_known() -> None:
    """What random boxes would give a detector is next to nothing, and nobody knows the number."""
    for random, labels in (
        (0.2, ["model, with 95 % interval", "random expectation"]),
        (math.nan, ["model, with 95 % interval"]),
    ):
        axes = Figure().subplots()
        _dots(axes, ["map"], [Measured(0.75, 0.7, 0.8, random, 30)], "all pictures", 1)
        assert axes.get_legend_handles_labels()[1] == labels
