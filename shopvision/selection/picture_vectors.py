"""Vectors that pictures have under a model version, and those that are shared among pictures with the same bytes.

They stand in ``embeddings``, so a picture is embedded once, in however many plans and selections it is. What the
catalogue's encoder last saw of a picture (its sha256) tells whether a vector is still that of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from shopvision.database import connect

# Joined to each picture: the vector of the model itself, and what the catalogue's encoder has seen. That may have
# vectors of several regions, all from the same bytes: the first row of a picture tells. (Planned as an anti join.)
OWN = """
    LEFT JOIN embeddings AS own
        ON own.image_id = image.image_id AND own.model_version_id = :vectors AND own.region = 0
    """
SEEN = """
    JOIN embeddings AS seen ON seen.image_id = image.image_id
        AND seen.model_version_id = (SELECT model_version_id FROM model_roles WHERE role = 'catalogue_encoder')
        AND NOT EXISTS (
            SELECT FROM embeddings AS earlier
            WHERE earlier.model_version_id = seen.model_version_id AND earlier.image_id = seen.image_id
                AND earlier.region < seen.region)
    """
# What of pictures a result depends on: which they are, and their bytes.
MARK = "int8send(image.image_id) || coalesce(seen.image_sha256, own.image_sha256, '\\x00'::bytea)"

_STALE = f"""
    SELECT image.image_id, seen.image_sha256 FROM item_images AS image {OWN} LEFT {SEEN}
    WHERE image.image_id = ANY(:image_ids) AND (own.image_id IS NULL OR own.image_sha256 <> seen.image_sha256)
    ORDER BY image.image_id
    """  # noqa: S608 - our own fragments

# The lock keeps the pictures in place until the commit.
_SHARE = f"""
    INSERT INTO embeddings (model_version_id, image_id, image_sha256, source_fingerprint, vector, precision)
    SELECT :vectors, seen.image_id, seen.image_sha256, seen.source_fingerprint, same.vector, same.precision
    FROM (SELECT image_id FROM item_images WHERE image_id = ANY(:image_ids) ORDER BY image_id FOR KEY SHARE) AS image
    {SEEN}
    CROSS JOIN LATERAL (
        SELECT vector, precision FROM embeddings AS own
        WHERE own.model_version_id = :vectors AND own.image_sha256 = seen.image_sha256 AND own.region = 0
        LIMIT 1) AS same
    ORDER BY image.image_id
    ON CONFLICT (model_version_id, image_id, region) DO UPDATE SET
        image_sha256 = excluded.image_sha256, source_fingerprint = excluded.source_fingerprint,
        vector = excluded.vector, precision = excluded.precision, embedded_at = now()
    """  # noqa: S608 - our own fragments

_VECTORS = """
    SELECT image.image_id, own.image_sha256, own.vector FROM item_images AS image
    JOIN embeddings AS own ON own.image_id = image.image_id AND own.model_version_id = :vectors AND own.region = 0
    WHERE image.image_id = ANY(:image_ids)
    """


@dataclass(frozen=True, slots=True)
class StoredVector:
    """What a model version saw in a picture.

    Attributes:
        sha256: of the picture's bytes.
        vector: (d,) float32 of unit length.
    """

    sha256: bytes
    vector: NDArray[np.float32]


def stale_pictures(version: int, image_ids: Sequence[int]) -> dict[int, bytes | None]:
    """Those of some pictures that have no vector of what they look like now.

    Args:
        version: of the model.
        image_ids: of the pictures.

    Returns:
        image_id -> sha256 of the bytes; None where nobody knows it.
    """
    with connect() as connection:
        rows = connection.execute(text(_STALE), {"vectors": version, "image_ids": list(image_ids)})
        return {image_id: None if sha256 is None else bytes(sha256) for image_id, sha256 in rows}


def share_vectors(version: int, image_ids: Sequence[int]) -> int:
    """Give pictures the vector of others with the same bytes, where there is one. Returns how many got one."""
    with connect() as connection:
        return connection.execute(text(_SHARE), {"vectors": version, "image_ids": sorted(image_ids)}).rowcount


def read_vectors(connection: Connection, version: int, image_ids: Sequence[int]) -> dict[int, StoredVector]:
    """The vectors of those of some pictures that have one."""
    rows = connection.execute(text(_VECTORS), {"vectors": version, "image_ids": list(image_ids)})
    return {
        image_id: StoredVector(bytes(sha256), np.frombuffer(vector, "<f2").astype(np.float32))
        for image_id, sha256, vector in rows
    }
