"""Object storage: S3 and its relatives, or a folder, behind one small interface with conditional writes."""

from shopvision.storage.base import ObjectMissing, ObjectStat, ObjectStore, PreconditionFailed
from shopvision.storage.opening import open_store

__all__ = ["ObjectMissing", "ObjectStat", "ObjectStore", "PreconditionFailed", "open_store"]
