"""A labelling job from its start to its end: what ``tasks.label_posts`` asks for.

Posts of a file, and those that a service sends with the job, are stored first; from then on a job knows them by id, and
a new model finds all of them. A row of a file that is no post becomes a failure that names the row.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

from shopvision.catalogue.allowed_files import allowed_location
from shopvision.database import connect
from shopvision.errors import ItemError
from shopvision.fashion.kinds import CLASSIFIER_KIND, KIND
from shopvision.fashion.posts import results, store
from shopvision.fashion.posts.outcome import PostOutcome
from shopvision.fashion.posts.records import SocialPost, opened_posts, post_from_record
from shopvision.fashion.posts.rules import LabelRules
from shopvision.fashion.posts.store import Labelling

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shopvision.models import ModelVersionRef

WITHOUT_MODELS = {
    "posts": 0,
    "reason": "No model serves the role {role}, so no post was labelled: "
    "`shopvision models activate {role} NAME:TAG` sets one.",
}
ROLES = (KIND, CLASSIFIER_KIND)
_ROW_NAME = re.compile(r"row (\d+)")
_MAX_KEY = 500  # characters, as the ledger takes them


class LabellingParams(Protocol):
    """A labelling job's parameters; ``tasks.label_posts.LabelParams`` says what they mean."""

    scope: Literal["changed", "all"]
    post_ids: list[str] | None
    posts: list[dict[str, Any]] | None
    posts_file: str | None
    images: str | None
    detector: str | None
    classifier: str | None
    rules: LabelRules


def pin(params: LabellingParams) -> dict[str, Any]:
    """What of a job's parameters must not change while it runs, by name; nothing where it has nothing to do.

    A routine job has nothing to do while a role is empty; whoever asks for more gets an error.

    Raises:
        UserError: a model is unknown, or of another kind.
        JobError: no model serves a role.
    """
    asked = (params.post_ids, params.posts, params.posts_file)
    is_routine = asked == (None, None, None) and params.scope == "changed"
    if is_routine and missing_role(params) is not None:
        return {}
    detector, classifier = resolved(params.detector, params.classifier)
    return {"detector": detector.spec, "classifier": classifier.spec}


def missing_role(params: LabellingParams) -> str | None:
    """The first role that a model is needed for and none serves."""
    from shopvision import models

    for role, spec in zip(ROLES, (params.detector, params.classifier), strict=True):
        if spec is None and models.serves(role) is None:
            return role
    return None


def keys(params: LabellingParams, should_stop: Callable[[], bool]) -> Iterator[str]:
    """Keys of the posts to label, and of rows that are none; they end early once asked to stop.

    Args:
        params: pinned.
        should_stop: asked between batches.

    Raises:
        UserError: a post is unknown, or the file cannot be read.
    """
    if params.detector is None or params.classifier is None:
        return
    if params.posts_file is not None:
        yield from _keys_of_file(params, should_stop)
    elif params.posts is not None:
        posts = [post_from_record(record) for record in params.posts]
        with connect() as connection:
            store.upsert_posts(connection, posts)
        yield from dict.fromkeys(_post_key(post.post_id) for post in posts)
    elif params.post_ids is not None:
        yield from map(_post_key, store.require_posts(params.post_ids))
    else:
        for number, post_id in enumerate(store.posts_in_scope(_labelling(params), everything=params.scope == "all")):
            if number % store.ROWS_AT_ONCE == 0 and should_stop():
                return
            yield _post_key(post_id)


def keys_again(params: LabellingParams, failed: Iterable[str], should_stop: Callable[[], bool]) -> Iterator[str]:
    """Keys of what failed in another job: its posts, and its file's rows as they are now."""
    rows, post_ids = set(), []
    for name in failed:
        if found := _ROW_NAME.fullmatch(name):
            rows.add(int(found[1]))
        else:
            post_ids.append(json.loads(name) if name.startswith('"') else name)
    if rows and params.posts_file is not None:
        yield from _keys_of_file(params, should_stop, only=rows)
    known = store.known_posts(post_ids)
    yield from (_post_key(post_id) for post_id in post_ids if post_id in known)


def _keys_of_file(
    params: LabellingParams, should_stop: Callable[[], bool], only: set[int] | None = None
) -> Iterator[str]:
    with opened_posts(allowed_location(str(params.posts_file)), params.images) as rows:
        while part := list(islice(rows, store.ROWS_AT_ONCE)):
            if should_stop():
                return
            wanted = part if only is None else [row for row in part if row[0] in only]
            with connect() as connection:
                store.upsert_posts(connection, [post for _, post in wanted if isinstance(post, SocialPost)])
            for number, post in wanted:
                yield _row_key(number, post) if isinstance(post, ItemError) else _post_key(post.post_id)


def _post_key(post_id: str) -> str:
    return f"post {post_id}"


def _row_key(number: int, error: ItemError) -> str:
    """A row that is no post is nothing but its failure, which its key tells."""
    return f"row {number} {error.code} {error.message}"[:_MAX_KEY]


def name_of(key: str) -> str:
    """How what a key stands for is called where it fails: a post by its id, a row by its number."""
    kind, _, rest = key.partition(" ")
    if kind == "row":
        return f"row {rest.partition(' ')[0]}"
    return post_name(rest)


def post_name(post_id: str) -> str:
    """How a failed post is called."""
    return (
        json.dumps(post_id, ensure_ascii=False) if post_id.startswith('"') or _ROW_NAME.fullmatch(post_id) else post_id
    )


@dataclass
class LabellingChunk:
    """What one chunk came to. ``write`` stores it and completes the counters; the caller decides in which transaction.

    Attributes:
        done: posts that were settled, the ``unchanged`` ones included.
        failed: (name, code, message).
        remaining: keys not looked at because the chunk was asked to stop.
        counters: see ``results.counters``.
        model_pictures: that went through models, for ``model_seconds``.
    """

    job_id: uuid.UUID
    labelling: Labelling
    outcomes: list[PostOutcome] = field(default_factory=list)
    unchanged: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    model_seconds: float = 0.0
    model_pictures: int = 0

    @property
    def done(self) -> int:
        """See the class."""
        return self.unchanged + sum(one.failure is None for one in self.outcomes)

    def write(self, connection: Connection) -> None:
        """Store posts and pairs."""
        self.counters.clear()
        self.counters |= results.counters(
            results.write_outcomes(connection, self.labelling, self.job_id, self.outcomes)
        )


def work(
    params: LabellingParams, chunk_keys: Sequence[str], job_id: uuid.UUID, should_stop: Callable[[], bool]
) -> LabellingChunk:
    """Label one chunk's posts. No database connection is held while a model computes.

    Args:
        params: pinned.
        chunk_keys: from ``keys``.
        job_id: the job's.
        should_stop: asked between batches.

    Raises:
        UserError: the models and the rules have no classes in common.
    """
    from shopvision import models
    from shopvision.fashion.posts.labelling import Labeller
    from shopvision.images import PictureDoor
    from shopvision.settings import get_settings

    chunk = LabellingChunk(job_id, _labelling(params))
    post_ids = []
    for key in chunk_keys:
        kind, _, rest = key.partition(" ")
        if kind == "row":
            _, code, message = rest.split(" ", 2)
            chunk.failed.append((name_of(key), code, message))
        else:
            post_ids.append(rest)
    if params.scope == "changed":
        unchanged = store.unchanged_posts(chunk.labelling, post_ids)
        chunk.unchanged = len(unchanged)
        post_ids = [post_id for post_id in post_ids if post_id not in unchanged]
    posts = store.read_posts(post_ids)
    if not posts:
        return chunk

    def known_photos(hashes: Mapping[str, int]) -> Mapping[str, str]:
        with connect() as connection:
            return store.same_photos(connection, chunk.labelling, hashes, but_not=post_ids)

    labeller = Labeller(
        models.load(str(params.detector)), models.load(str(params.classifier)), params.rules, known_photos
    )
    with PictureDoor(get_settings()) as door:
        chunk.outcomes, left = labeller.label(posts, door, should_stop)
    chunk.remaining = [_post_key(post.post_id) for post in left]
    chunk.failed += [
        (post_name(one.post.post_id), one.failure.code, one.failure.message)
        for one in chunk.outcomes
        if one.failure is not None
    ]
    chunk.model_seconds, chunk.model_pictures = labeller.model_seconds, labeller.model_pictures
    return chunk


def finish(params: LabellingParams, counters: Mapping[str, int]) -> dict[str, Any]:
    """What came of it, by reason; safe to repeat.

    Args:
        params: pinned.
        counters: of all chunks.
    """
    if params.detector is None or params.classifier is None:
        role = missing_role(params) or ROLES[0]
        return {**WITHOUT_MODELS, "reason": str(WITHOUT_MODELS["reason"]).format(role=role)}
    return {
        "detector": params.detector,
        "classifier": params.classifier,
        **{
            what: {
                name.removeprefix(f"{what}_"): count
                for name, count in sorted(counters.items(), key=lambda one: (-one[1], one[0]))
                if name.startswith(f"{what}_")
            }
            for what in ("posts", "pairs")
        },
    }


def _labelling(params: LabellingParams) -> Labelling:
    detector, classifier = resolved(params.detector, params.classifier)
    rules = json.dumps(asdict(params.rules), sort_keys=True).encode()
    return Labelling(
        detector.model_version_id, classifier.model_version_id, hashlib.sha256(rules).digest(),
        params.rules.photo_distance,
    )  # fmt: skip


def resolved(detector: str | None, classifier: str | None) -> tuple[ModelVersionRef, ModelVersionRef]:
    """Both model versions, by ``name:tag`` or those that are active; see ``models.resolve``."""
    from shopvision import models

    return models.resolve(detector, KIND), models.resolve(classifier, CLASSIFIER_KIND)
