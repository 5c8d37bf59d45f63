"""The container files have what a deployment needs. Nothing here starts a container."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shopvision.settings import Settings

ROOT = Path(__file__).parents[3]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
WORKERS = ("gpu0", "cpu")
LONG_RUNNING = sorted(set(SERVICES) - {"bucket", "migrate"})


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


@pytest.mark.parametrize("name", WORKERS)
def test_a_deploy_never_kills_a_chunk(name: str) -> None:
    limit = Settings.model_fields["time_limit_seconds"].default
    assert seconds(SERVICES[name]["stop_grace_period"]) >= limit + 60


def test_what_must_be_there() -> None:
    assert set(SERVICES) == {"postgres", "redis", "objects", "bucket", "migrate", "gpu0", "cpu", "beat", "flower"}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_runs_for_ever_and_is_watched(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["logging"]["options"]["max-size"]


def test_no_secret_has_a_default() -> None:
    secret = re.compile(r"\$\{(\w*(?:PASSWORD|SECRET|ACCESS_KEY)\w*)(.{0,2})")
    found = secret.findall(COMPOSE_TEXT)
    assert {name for name, _ in found} == {
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "SHOPVISION_FLOWER_PASSWORD",
    }
    assert {operator for _, operator in found} == {":?"}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY|AUTH", name):
                assert value.startswith("${"), name


def test_redis_keeps_queues() -> None:
    script = SERVICES["redis"]["entrypoint"][-1]
    assert {"appendonly yes", "maxmemory-policy noeviction"} <= set(script.splitlines())
    assert 'requirepass "$$REDISCLI_AUTH"' in script
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_one_gpu_per_worker() -> None:
    (device,) = SERVICES["gpu0"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}


def test_workers_wait_for_the_schema_and_find_everything() -> None:
    for name in (*WORKERS, "beat", "flower"):
        service = SERVICES[name]
        assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        wanted = {
            "SHOPVISION_DATABASE_URL",
            "SHOPVISION_BROKER_URL",
            "SHOPVISION_OBJECT_STORE",
            "AWS_SECRET_ACCESS_KEY",
        }
        assert wanted <= set(service["environment"])
    assert SERVICES["migrate"]["command"] == ["migrate", "--default-model"]
    assert SERVICES["postgres"]["image"] == "postgres:18"
    # From version 18 on the image keeps its data one folder higher than before.
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_settings_named_in_the_file_exist() -> None:
    names = set(re.findall(r"^\s+SHOPVISION_(\w+):", COMPOSE_TEXT, flags=re.MULTILINE))
    assert names <= {name.upper() for name in Settings.model_fields}


def test_only_flower_is_published_and_only_to_this_host() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"flower": ["127.0.0.1:5555:5555"]}


def test_commands_of_the_services_exist() -> None:
    import typer
    from typer.main import get_command

    from worker.cli import run

    app = typer.Typer()
    run.register(app)
    commands = get_command(app).commands  # type: ignore[attr-defined] # a group
    for name in ("migrate", "gpu0", "cpu", "beat", "flower"):
        command = get_command(app)
        for word in SERVICES[name]["command"]:
            if word.startswith("--"):
                assert word in {option for parameter in command.params for option in parameter.opts}
            else:
                command = command.commands[word]  # type: ignore[attr-defined] # a group
    assert SERVICES["cpu"]["healthcheck"]["test"][1:] == ["shopvision", "health"]
    assert "health" in commands


def test_image_is_locked_lean_and_unprivileged() -> None:
    steps = [line for line in DOCKERFILE.splitlines() if re.match("[A-Z]+ ", line)]
    final = steps[max(number for number, step in enumerate(steps) if step.startswith("FROM")) :]
    assert "USER shopvision" in final
    assert 'ENTRYPOINT ["shopvision"]' in final
    assert "uv pip install --constraints requirements.lock --requirements pyproject.toml" in DOCKERFILE
    assert "[stack]" not in DOCKERFILE
    assert "--extra" not in DOCKERFILE


def test_image_is_built_from_everything_it_needs() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in kept)
