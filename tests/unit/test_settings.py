"""Settings: environment over local stack over defaults; mistakes named by their variable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shopvision.errors import UserError
from shopvision.settings import get_settings


def test_a_local_stack_is_found_and_the_environment_wins(tmp_path: Path, set_environment: Callable[..., None]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "environment.json").write_text(
        json.dumps({"broker_url": "redis://stack:1/0", "object_store": "file:///stack"})
    )
    set_environment(SHOPVISION_OBJECT_STORE="s3://mine")
    settings = get_settings()
    assert settings.object_store == "s3://mine"
    assert settings.broker_url is not None
    assert settings.broker_url.get_secret_value() == "redis://stack:1/0"
    assert "stack:1" not in repr(settings)


def test_lists_are_separated_by_commas(set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_KIND_MODULES="tasks, shop.kinds", SHOPVISION_IMAGE_ROOTS="/a,/b")
    assert get_settings().kind_modules == ("tasks", "shop.kinds")
    assert get_settings().image_roots == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SHOPVISION_LEASE_SECONDS", "soon"),
        ("SHOPVISION_SCHEDULES", '{"nightly": {"kind": "x"}}'),
        ("SHOPVISION_SCHEDULES", "{not json"),
        ("SHOPVISION_QUEUE_DEPTH_LIMIT", "many"),
        ("SHOPVISION_TIMEZONE", "Seoul"),
    ],
)
def test_a_wrong_value_names_its_variable(set_environment: Callable[..., None], variable: str, value: str) -> None:
    set_environment(**{variable: value})
    with pytest.raises(UserError, match=variable) as refused:
        get_settings()
    assert "\n" not in str(refused.value)
