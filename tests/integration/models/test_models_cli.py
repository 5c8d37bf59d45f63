"""``shopvision models``, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shopvision.errors import UserError
from worker.cli.models import app

pytestmark = pytest.mark.usefixtures("database")


def call(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_from_import_to_rollback(
    tmp_path: Path, set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    monkeypatch.setattr("worker.cli.output.console.width", 200)
    assert call("list") == []
    source, role = "wheel:efficientnet-lite0", "catalogue_encoder"
    with pytest.raises(UserError, match="Role 'cook' is unknown"):
        call("import", source, "--activate", "cook")
    assert call("list") == []
    assert call("import", source, "--tag", "v1", "--activate", role) == {
        "spec": "efficientnet-lite0:v1",
        "activated": role,
    }
    assert call("import", source, "--name", "other", "--tag", "v2") == {"spec": "other:v2", "activated": None}
    assert call("activate", role, "other:v2") == {
        "role": role,
        "active": "other:v2",
        "previous": "efficientnet-lite0:v1",
    }
    assert call("rollback", role)["active"] == "efficientnet-lite0:v1"
    assert [(row["spec"], row["roles"]) for row in call("list")] == [
        ("efficientnet-lite0:v1", [role]),
        ("other:v2", []),
    ]
    assert call("show", "other:v2")["architecture"] == {
        "library": "timm", "name": "tf_efficientnet_lite0", "arguments": {"num_classes": 0},
    }  # fmt: skip
    shown = CliRunner().invoke(app, ["show", "other:v2"], catch_exceptions=False).stdout
    assert "architecture.name" in shown
    assert "tf_efficientnet_lite0" in shown
    listed = CliRunner().invoke(app, ["list"], catch_exceptions=False).stdout
    assert "efficientnet-lite0:v1" in listed
