"""``shopvision models compose``: from members in the registry to an encoder that serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shopvision import models
from shopvision.embeddings.composition import composition_of
from shopvision.errors import JobError, UserError
from tests.unit.fashion.tiny_members import DIMENSION, save_tiny_detector, save_tiny_encoder
from worker.cli.models import app

pytestmark = pytest.mark.usefixtures("database")


def call(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["compose", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_from_members_to_the_active_encoder_and_what_is_refused(
    tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    finder, eye = save_tiny_detector(tmp_path / "finder"), save_tiny_encoder(tmp_path / "eye")
    save_tiny_encoder(tmp_path / "wide", name="wide", dimension=300)
    categories = tmp_path / "categories.json"
    categories.write_text('{"Men/Shoes": "shoes"}')
    with pytest.raises(UserError, match=r"registry does not hold the detector finder.*: `shopvision models import"):
        call("--name", "g", "--detector", finder, "--encoder", eye)
    with pytest.raises(UserError, match=r"eye:\w+ is of the kind image_encoder .*not fashion_detector"):
        call("--name", "g", "--detector", eye, "--encoder", eye)
    with pytest.raises(JobError, match="No model serves the role fashion_detector"):
        call("--name", "g", "--encoder", eye)
    detector = models.import_model(f"local-dir:{finder}")
    models.activate("fashion_detector", detector.spec)

    told = call(
        "--name", "garments", "--encoder", eye, "--encoder-for", f"shoes={eye}", "--categories", categories,
        "--margin", "0.2", "--smallest-side", "20", "--activate",
    )  # fmt: skip
    assert (told["detector"], told["activated"]) == (detector.spec, "catalogue_encoder")
    assert told["dimension"] == DIMENSION + 2
    assert told["policy"] == {"crop": "main", "margin": 0.2, "smallest_side": 20, "score": 0.5}
    assert told["classes"] == {"Men/Shoes": "shoes"}
    ref = models.active("catalogue_encoder")
    composition = composition_of(ref)
    assert composition is not None
    assert composition.detector_version_id == detector.model_version_id
    assert composition.goes_by_category
    assert models.load(ref.spec).classes == {"Men/Shoes": "shoes"}
    whole = models.find(call("--name", "whole", "--encoder", eye, "--crop", "whole", "--tag", "1")["spec"])
    assert composition_of(whole) is None
    shown = CliRunner().invoke(app, ["compose", "--name", "g2", "--encoder", str(eye)], catch_exceptions=False).stdout
    assert "smallest side" in shown

    for options, message in [
        (["--encoder", "eye:none"], "There is no model version eye:none"),
        (["--encoder", detector.spec], "is of the kind fashion_detector .* not image_encoder"),
        (["--encoder", eye, "--encoder-for", f"bag={tmp_path / 'wide'}"], "gives vectors of 256 dimensions and wide"),
        (["--encoder", eye, "--encoder-for", "bag"], "give CLASS=SPEC"),
        (["--encoder", eye, "--encoder-for", f"bag={eye}", "--encoder-for", f"bag={eye}"], "the class bag twice"),
        (["--encoder", eye, "--encoder-for", f"boot={eye}"], "knows no class 'boot'"),
        (["--encoder", eye, "--crop", "half"], "--crop half: Input should be 'whole', 'main' or 'all'"),
        (["--encoder", eye, "--score", "2"], "--score 2.0: Input should be less than or equal to 1"),
        (["--encoder", eye, "--name", "a b"], "name 'a b': use letters"),
    ]:
        with pytest.raises(UserError, match=message):
            call("--name", "g", *options)
    assert len(models.list_versions()) == 4


def test_a_detector_that_is_not_in_the_registry_is_named_before_a_job_begins(
    tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    """The version was composed elsewhere, from a folder."""
    from shopvision.fashion.composition.card import compose

    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    finder, eye = save_tiny_detector(tmp_path / "finder"), save_tiny_encoder(tmp_path / "eye")
    compose(tmp_path / "garments", detector=finder, encoder=eye, name="garments")
    ref = models.import_model(f"local-dir:{tmp_path / 'garments'}")
    with pytest.raises(UserError, match=r"garments:\w+ finds garments with the detector finder:\w+, which"):
        composition_of(ref)
    finder_tag = ref.card.architecture.arguments["detector"].partition(":")[2]
    models.import_model(f"local-dir:{save_tiny_detector(tmp_path / 'other', spread=0.2)}", tag=finder_tag)
    with pytest.raises(UserError, match=r"garments:\w+ holds another detector than the registry does as finder:\w+"):
        composition_of(ref)
