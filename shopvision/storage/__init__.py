"""Object storage: S3 and its relatives, or a folder, behind one small interface with conditional writes."""

from shopvision.storage.base import ObjectMissing, ObjectStat, ObjectStore, PreconditionFailed
from shopvision.storage.digests import sha256_of
from shopvision.storage.opening import close_stores, open_store

__all__ = [
    "ObjectMissing",
    "ObjectStat",
    "ObjectStore",
    "PreconditionFailed",
    "close_stores",
    "open_store",
    "sha256_of",
]
