"""What a job kind is: parameters, how it splits, what one chunk does, how it finishes. And which kinds there are.

A kind is one class in one module of ``tasks/``::

    class RefreshEmbeddings(JobKind[RefreshParams]):
        name = "refresh_embeddings"
        queue = "gpu.embed"
        params = RefreshParams
        ...

    refresh_embeddings = register(RefreshEmbeddings())
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Protocol, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from shopvision.errors import UserError
from worker.input_checks import MAX_ID_LENGTH, require_storable

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Connection


class Phase(StrEnum):
    """What a chunk is for. Splitting and finishing are chunks too, so they have the same leases and retries.

    The value is also the last part of the Celery task's name.
    """

    SPLIT = "split"
    CHUNK = "chunk"
    FINISH = "finish"


class JobParams(BaseModel):
    """Base of every kind's parameters: unknown names are refused."""

    # Built at first use: a producer that imports `tasks` checks nothing and should not pay for it.
    model_config = ConfigDict(extra="forbid", defer_build=True)


CatalogueId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_LENGTH)]
"""For parameters that name items or plans."""


def _table(location: str) -> str:
    from shopvision.catalogue.allowed_files import require_location

    return require_location(location)


TableFile = Annotated[str, AfterValidator(_table)]
"""For parameters that name a table to be read. It need not be there yet, and the worker may be another machine."""

P = TypeVar("P", bound=JobParams)


class Begun(Protocol):
    """What a chunk has begun for the one after it, such as pictures on their way."""

    def close(self) -> None:
        """Stop it, if it has not been stopped before."""


class StepContext(Protocol):
    """What a running step may ask.

    Attributes:
        job_id: the job it belongs to.
        round: of a split: how often the job has been split, this time included.
        begun: of a chunk: what the one before it has begun for it; closed when the chunk ends.
    """

    job_id: uuid.UUID
    round: int
    begun: Begun | None

    def should_stop(self) -> bool:
        """True once the step should end early: hand back what is left, or give up splitting. Cheap: ask often."""

    def next_keys(self) -> list[str] | None:
        """Keys of the chunk that this process takes next, so that it can be begun; None where it takes none.

        Asking takes the chunk away from other processes: ask once there is nothing left to begin in this one.
        """


@dataclass(frozen=True)
class ItemFailed:
    """An item that could not be processed: its key (or name, see ``JobKind.name_of``), a reason code, one line."""

    key: str
    code: str
    message: str


@dataclass
class ChunkResult:
    """What a chunk came to. ``write`` runs inside the one transaction that also marks the chunk done.

    Attributes:
        done: items that were processed, unchanged ones included and failed ones not.
        skipped: of ``done``, those where nothing had changed.
        failures: items that failed.
        remaining: keys not looked at because the chunk was asked to stop.
        counters: numbers the kind wants summed over the job; read after ``write``, which may set some.
        write: stores the results; may be called again with a new connection if the commit was in doubt.
        model_seconds: time that ``model_items`` items spent in models, for the metrics.
        reading_seconds: likewise of pictures: what was waited for them (``wait``), and what threads took to ``fetch``
            and, of a processor, to ``decode`` them.
        begun: what was begun for the chunk of ``StepContext.next_keys``.
    """

    done: int = 0
    skipped: int = 0
    failures: list[ItemFailed] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    write: Callable[[Connection], None] | None = None
    model_seconds: float = 0.0
    model_items: int = 0
    reading_seconds: Mapping[str, float] = field(default_factory=dict)
    begun: Begun | None = None


class JobKind(ABC, Generic[P]):
    """One kind of job. Instances are stateless: models and clients are cached by the domain code they call."""

    name: ClassVar[str]
    queue: ClassVar[str]
    finish_queue: ClassVar[str] = "io"
    chunk_size: ClassVar[int] = 1000
    rounds: ClassVar[int] = 1
    params: ClassVar[type[JobParams]]

    def urgent(self, params: P) -> bool:  # noqa: ARG002 - for those that need it
        """Whether somebody waits for this job: its messages go first, and running chunks of other jobs make room."""
        return False

    def pin(self, params: P) -> P:
        """Fix at the start what must not change while the job runs, such as the model version."""
        return params

    @abstractmethod
    def split(self, params: P, context: StepContext) -> Iterable[str]:
        """Every item key of the job, streamed; the ledger cuts chunks of at most ``chunk_size``.

        A kind with several ``rounds`` is asked again once every chunk of a round is done, so that its next keys may
        depend on what they made; ``context.round`` counts from 1.
        """

    def split_again(self, params: P, failed: Iterable[str], context: StepContext) -> Iterable[str]:  # noqa: ARG002 - for those that need it
        """Every item key of a job for what failed in another one, by the names of its failures, streamed."""
        return failed

    def name_of(self, job_id: uuid.UUID, key: str) -> str:  # noqa: ARG002 - for those that need it
        """What an item is called where it fails, by its key. A kind whose keys are no names of items says it."""
        return key

    @abstractmethod
    def run(self, params: P, keys: list[str], context: StepContext) -> ChunkResult:
        """Process one chunk. Look at ``context.should_stop()`` between batches and return what is left."""

    def finish(self, params: P, context: StepContext) -> dict[str, Any]:  # noqa: ARG002 - for those that need it
        """After the last chunk: publish, group, report. Must be safe to run again. Returns the job's result."""
        return {}


_kinds: dict[str, JobKind[Any]] = {}


def add_kind(kind: JobKind[Any]) -> None:
    """Make ``kind`` known by its name; ``worker.registration.register`` also makes its Celery tasks."""
    _kinds[kind.name] = kind


def get_kind(name: str) -> JobKind[Any]:
    """The kind called ``name``.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    kinds = all_kinds()
    if name not in kinds:
        raise UserError(f"Unknown job kind {name!r}. There are: {', '.join(sorted(kinds))}.")
    return kinds[name]


def all_kinds() -> dict[str, JobKind[Any]]:
    """Every kind, by name; imports the modules that define them."""
    from shopvision.settings import get_settings

    for module in get_settings().kind_modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UserError(f"SHOPVISION_KIND_MODULES names {module!r}, which cannot be imported: {error}.") from None
    return _kinds


def parse_params(kind: JobKind[P], raw: dict[str, Any]) -> P:
    """Check and convert parameters.

    Raises:
        UserError: names the first parameter that is wrong and those the kind takes.
    """
    require_storable(raw, kind.name)
    try:
        checked = kind.params.model_validate(raw)
    except ValidationError as error:
        # Of the types that one parameter may have, the one that came nearest says what is wrong.
        nearest = max(error.errors(), key=lambda one: len(one["loc"]))
        where = ".".join(str(part) for part in nearest["loc"]) or "parameters"
        takes = ", ".join(_names(kind.params, nearest["loc"])) or "no parameters"
        raise UserError(f"{kind.name}: {where[:100]}: {nearest['msg']}. It takes: {takes}.") from None
    require_storable(checked.model_dump(), kind.name)  # a text such as "nan" has become a number
    return checked  # type: ignore[return-value] # ClassVar cannot carry the type variable


def _names(params: type[JobParams], where: tuple[int | str, ...]) -> list[str]:
    """The names that stand beside a wrong one: of parameters, or of the fields of one parameter."""
    if len(where) > 1 and where[0] in params.model_fields:
        annotation = params.model_fields[str(where[0])].annotation
        for option in (annotation, *get_args(annotation)):
            if is_dataclass(option):
                return [one.name for one in fields(option)]
    return list(params.model_fields)
