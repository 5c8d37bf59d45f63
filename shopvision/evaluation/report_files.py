"""An evaluation as files: JSON for programs, a page for people."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from shopvision.evaluation.report import COLUMNS, EvaluationReport
from shopvision.reports import render_page
from shopvision.reports.row_writer import replacing

METRICS_FILE = "metrics.json"
PAGE_FILE = "report.html"


def write_report(folder: Path, report: EvaluationReport, plots: Sequence[Path] = ()) -> None:
    """Write ``metrics.json`` and ``report.html``.

    Args:
        folder: an existing one.
        report: what was found.
        plots: PNG files that the page shows.

    Raises:
        UserError: a file cannot be written.
    """
    text = json.dumps(report.as_dict(), ensure_ascii=False, indent=2, allow_nan=False)
    with replacing(folder / METRICS_FILE) as part:
        part.write_text(text + "\n", encoding="utf-8")
    render_page(
        "evaluation.html",
        folder / PAGE_FILE,
        {},
        title=report.title,
        subtitle=report.data,
        facts=report.fact_rows(),
        report=report,
        columns=COLUMNS,
        plots=[f"data:image/png;base64,{base64.b64encode(plot.read_bytes()).decode()}" for plot in plots],
    )
