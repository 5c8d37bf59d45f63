"""The small object that says which generation serves: reading it, and moving it."""

from __future__ import annotations

from pydantic import ValidationError

from shopvision.errors import JobError, TransientError
from shopvision.index.manifest import Current, Manifest, current_key, manifest_key
from shopvision.storage import ObjectMissing, ObjectStore, PreconditionFailed, sha256_of


def read_current(store: ObjectStore, name: str) -> tuple[Current, str] | None:
    """What ``current`` says, and its etag; ``None`` before the first publication."""
    try:
        data, etag = store.get_with_etag(current_key(name))
    except ObjectMissing:
        return None
    try:
        return Current.model_validate_json(data), etag
    except ValidationError:
        raise JobError(f"{store.url}/{current_key(name)} is damaged: run `shopvision index repair`.") from None


def read_manifest(store: ObjectStore, current: Current) -> Manifest:
    """The manifest of the current generation, checked against the digest in ``current``.

    Raises:
        ObjectMissing: it is not there.
        JobError: it is not the one that was published, or of a newer format.
    """
    key = manifest_key(current.generation)
    data = store.get(key)
    if sha256_of(data) != current.manifest_sha256:
        raise JobError(f"{store.url}/{key} is not the manifest that was published: run `shopvision index rollback`.")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError:
        raise JobError(f"{store.url}/{key} has a format this version does not know: upgrade shopvision here.") from None


def move_current(store: ObjectStore, name: str, target: Current, expected_etag: str | None) -> None:
    """Let ``current`` point to ``target`` if nobody else moved it.

    Raises:
        TransientError: somebody did, or the store is away; readers keep a valid generation either way.
    """
    key, data = current_key(name), target.model_dump_json().encode()
    try:
        if store.honours_conditional_writes():
            store.put(key, data, if_match=expected_etag, if_none_match=expected_etag is None)
            return
        try:
            found_etag = store.get_with_etag(key)[1]
        except ObjectMissing:
            found_etag = None
        if found_etag == expected_etag:
            store.put(key, data)
            return
    except PreconditionFailed:
        # A repeated request is refused where the first one succeeded and only its answer was lost.
        if (found := read_current(store, name)) and found[0] == target:
            return
    raise TransientError(f"Index {name!r} was published by another process meanwhile: try again.")
