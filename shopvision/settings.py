"""Settings: every ``SHOPVISION_*`` environment variable, its default and its meaning, in one place."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from shopvision.errors import UserError


class Schedule(BaseModel):
    """One recurring job: at each time that ``cron`` matches (in ``timezone``) a job of ``kind`` is due."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    cron: str
    params: dict[str, Any] = {}
    timezone: str = "UTC"


Way = Literal["eager", "compiled"]


class TuningChoice(BaseModel):
    """How a network is run; None leaves it to what was measured, or to the default.

    Attributes:
        batch_size: inputs at once: pictures, or tokens of a pair model.
        way: as its library made it, or through a compiled package.
        decoding_threads: pictures that one process decodes at the same time.
        precision: that it computes in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int | None = Field(None, ge=1)
    way: Way | None = None
    decoding_threads: int | None = Field(None, ge=1)
    precision: Literal["float32", "bfloat16", "float16"] | None = None


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("unknown time zone; use a name like Asia/Seoul") from None
    return name


_CommaSeparated = (NoDecode, BeforeValidator(_split_commas))


class Settings(BaseSettings):
    """Read from the environment; ``SHOPVISION_HOME`` also names the folder of the local stack."""

    model_config = SettingsConfigDict(env_prefix="SHOPVISION_", extra="ignore", frozen=True)

    home: Path = Field(Path(".shopvision"), description="state of the local stack, local caches and worker run files")
    database_url: SecretStr | None = Field(None, description="postgresql://user:password@host/database")
    database_transaction_pooling: bool = Field(
        default=False, description="true where the address leads to a pooler in transaction mode, such as PgBouncer"
    )
    broker_url: SecretStr | None = Field(None, description="redis://:password@host:6379/0")
    object_store: str | None = Field(None, description="s3://bucket/prefix or file:///dir")
    s3_endpoint_url: str | None = Field(None, description="an S3-compatible server other than AWS")

    kind_modules: Annotated[tuple[str, ...], *_CommaSeparated] = Field(
        ("tasks",), description="comma-separated modules that define job kinds; add your own package here"
    )
    model_kind_modules: Annotated[tuple[str, ...], *_CommaSeparated] = Field(
        (), description="comma-separated modules that define further kinds of model"
    )
    schedules: dict[str, Schedule] = Field(
        {
            "nightly_refresh": Schedule(kind="refresh_embeddings", cron="0 2 * * *"),
            "hourly_refresh": Schedule(kind="refresh_embeddings", cron="30 * * * *", params={"verify": False}),
            "hourly_text_refresh": Schedule(
                kind="refresh_embeddings", cron="45 * * * *", params={"role": "image_recall", "verify": False}
            ),
            "nightly_selection": Schedule(kind="select_images", cron="30 3 * * *"),
            "nightly_ranking": Schedule(kind="rank_plans", cron="0 4 * * *"),
            "nightly_matching": Schedule(kind="score_pairs", cron="0 5 * * *"),
        },
        description="JSON object: name -> {kind, cron, params, timezone}",
    )

    timezone: Annotated[str, AfterValidator(_time_zone)] = Field(
        "UTC", description="the shop's: which day a plan's date is that says a time of day, and what today is"
    )

    image_roots: Annotated[tuple[Path, ...], *_CommaSeparated] = Field(
        (), description="comma-separated folders that local pictures may be read from"
    )
    image_max_bytes: int = Field(32 * 2**20, description="largest encoded picture, bytes")
    image_max_pixels: int = Field(100_000_000, description="largest decoded picture, pixels")
    image_max_side: int = Field(20_000, description="longest side, pixels")
    image_memory_bytes: int = Field(
        2 * 2**30, description="memory of all pictures that one process decodes at the same time"
    )
    image_timeout_seconds: float = Field(20.0, description="whole time for fetching one picture")
    image_allow_private_hosts: bool = Field(default=False, description="let https pictures come from private addresses")

    fast_paths: bool = Field(default=True, description="false runs encoders as their libraries made them")
    tuning: dict[str, TuningChoice] = Field(
        {}, description="JSON object: model -> {batch_size, way, decoding_threads, precision}"
    )
    worker_processes: int | None = Field(
        None, ge=1, description="processes of a worker that runs models on the CPU; by default as measured"
    )
    tuning_seconds: float = Field(
        15.0, ge=0, description="that a worker may measure a network that is new to its machine; 0: never"
    )
    compile_in_background: bool = Field(
        default=True,
        description="workers have the networks compiled that they run; false only takes what `models warm` made",
    )
    compiled_bytes: int = Field(8 * 2**30, description="compiled networks kept below <home>/compiled")
    loaded_models_bytes: int = Field(4 * 2**30, description="loaded models of one process, by their files' size")

    lease_seconds: float = Field(60.0, description="a chunk whose worker was silent for so long is given to another")
    deaths_before_split: int = Field(3, description="worker losses on one chunk before it is cut in half")
    resend_after_seconds: float = Field(30.0, description="a sent chunk that nobody claimed for so long is sent again")
    queue_depth_limit: int = Field(64, description="messages waiting in one queue before the relay holds back")
    soft_time_limit_seconds: int = Field(600, description="a chunk is asked to stop after this many seconds")
    time_limit_seconds: int = Field(720, description="a chunk's process is killed after this many seconds")
    whole_time_limit_seconds: int = Field(
        3000, description="a process that splits or finishes a whole job is killed after this many seconds"
    )
    dispatch_interval_seconds: float = Field(2.0, description="how often relay and reaper look, at the latest")
    plan_interval_seconds: float = Field(30.0, description="how often beat asks which schedules are due")

    keep_jobs_days: float = Field(90.0, description="finished jobs with their chunks and failures")
    keep_chunks_days: float = Field(7.0, description="chunks of succeeded jobs; their job keeps the numbers")
    keep_outbox_days: float = Field(1.0, description="sent outbox rows")
    keep_superseded_days: float = Field(30.0, description="results of model versions that no role points to")
    keep_generations: int = Field(5, description="index generations kept for rollback")

    health_host: str = Field("127.0.0.1", description="address of each worker's /livez, /readyz and /metrics")
    health_port: int = Field(0, description="its port; 0: a free one, noted in <home>/run/<worker>/health.json")
    flower_user: str = "operator"
    flower_password: SecretStr | None = Field(None, description="Flower does not start without one")
    flower_host: str = Field("127.0.0.1", description="address that Flower listens on")
    flower_port: int = 5555
    flower_read_only: bool = Field(
        default=True,
        description="false lets Flower's users, and whoever reaches the broker, stop workers and revoke tasks",
    )

    index_name: str = "catalogue"
    log_format: str = Field("auto", description="json, console, or auto: console on a terminal")
    log_level: str = "INFO"

    @property
    def cache_dir(self) -> Path:
        """Downloaded models and index generations of this machine."""
        return self.home / "cache"

    def with_image_roots(self, folders: Iterable[Path]) -> Settings:
        """These settings, with folders that local pictures may be read from as well: a command's user named them."""
        roots = (*self.image_roots, *(folder.resolve() for folder in folders))
        return self.model_copy(update={"image_roots": roots})


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process: environment first, then what a local stack in ``home`` wrote down.

    Raises:
        UserError: a variable has the wrong type or an unknown value.
    """
    from shopvision.local_stack_env import stack_environment

    home = Path(os.environ.get("SHOPVISION_HOME", ".shopvision")).resolve()
    overrides = {"home": home, **stack_environment(home)}
    given = {name for name in Settings.model_fields if f"SHOPVISION_{name.upper()}" in os.environ} - {"home"}
    try:
        return Settings(**{key: value for key, value in overrides.items() if key not in given})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise UserError(f"Setting SHOPVISION_{name}: {first['msg']}. Correct the environment variable.") from None
    except SettingsError as error:
        name = str(error).split('"')[1].upper()
        raise UserError(f"Setting SHOPVISION_{name} is not valid JSON: {error.__cause__}.") from None
