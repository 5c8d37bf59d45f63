"""Posts and their labels in Postgres.

What was made of a post stands under its detector and classifier, so that two models live side by side. A post is due
where they have not seen it as it is now by these rules, and where the post that had the same photo has it no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb
from sqlalchemy import Connection, select, text

from shopvision.database import among, connect, copy_upsert
from shopvision.errors import UserError
from shopvision.fashion.posts.photo_hash import bands
from shopvision.fashion.posts.records import SocialPost, TaggedProduct
from shopvision.fashion.posts.tables import Post

ROWS_AT_ONCE = 1_000

_POST_COLUMNS = (("post_id", "text"), ("photo_uri", "text"), ("products", "jsonb"), ("content_hash", "bytea"))

_LABELLED = """
    FROM posts
    LEFT JOIN labelled_posts AS done ON done.post_id = posts.post_id
        AND done.detector_version_id = :detector AND done.classifier_version_id = :classifier
    LEFT JOIN labelled_posts AS first ON first.post_id = done.same_as
        AND first.detector_version_id = :detector AND first.classifier_version_id = :classifier
    """
_DUE = """
    (done.input_hash IS DISTINCT FROM sha256(posts.content_hash || CAST(:rules AS bytea))
     OR done.same_as IS NOT NULL AND (first.state IS DISTINCT FROM 'kept'
        OR bit_count(CAST(first.photo_hash # done.photo_hash AS bit(64))) > :distance))
    """
# Whoever has a band in common; few of them are near.
_PERHAPS_SAME = """
    SELECT post_id, photo_hash FROM labelled_posts
    WHERE hash_bands && CAST(:bands AS int4[]) AND post_id <> ALL(:but_not)
      AND detector_version_id = :detector AND classifier_version_id = :classifier
    ORDER BY post_id
    """


@dataclass(frozen=True)
class Labelling:
    """What labels depend on beside the post.

    Attributes:
        detector: id of the detector's version.
        classifier: id of the thumbnail classifier's version.
        rules: hash of the rules.
        distance: of two photos that are one, see ``LabelRules``; None where all are kept.
    """

    detector: int
    classifier: int
    rules: bytes
    distance: int | None

    @property
    def values(self) -> dict[str, Any]:
        """For statements."""
        distance = -1 if self.distance is None else self.distance
        return {"detector": self.detector, "classifier": self.classifier, "rules": self.rules, "distance": distance}


def upsert_posts(connection: Connection, posts: Iterable[SocialPost]) -> int:
    """Insert or update posts in the caller's transaction; returns how many of them are new or changed.

    Args:
        connection: writes them.
        posts: of one id the last one counts.
    """
    by_id = {post.post_id: post for post in posts}
    stored = {
        row.post_id: (row.photo_uri, row.products)
        for row in connection.execute(
            select(Post.post_id, Post.photo_uri, Post.products).where(among(Post.post_id, by_id))
        )
    }
    rows = []
    for post_id in sorted(by_id):  # in one order, so that two writers never wait for each other
        post = by_id[post_id]
        products = [
            {"product_id": one.product_id, "thumbnail": one.thumbnail, "title": one.title} for one in post.products
        ]
        if stored.get(post_id) != (post.photo, products):
            rows.append((post_id, post.photo, Jsonb(products), post.content_hash()))
    return copy_upsert(connection, Post.__table__, _POST_COLUMNS, rows, key=("post_id",)) if rows else 0  # type: ignore[arg-type] # declared as FromClause


def read_posts(post_ids: Sequence[str]) -> list[SocialPost]:
    """The posts that there are, in the order of the ids."""
    query = select(Post.post_id, Post.photo_uri, Post.products).where(among(Post.post_id, post_ids))
    with connect() as connection:
        found = {row.post_id: row for row in connection.execute(query)}
    return [
        SocialPost(
            post_id,
            found[post_id].photo_uri,
            tuple(TaggedProduct(one["product_id"], one["thumbnail"], one["title"]) for one in found[post_id].products),
        )
        for post_id in post_ids
        if post_id in found
    ]


def require_posts(post_ids: Sequence[str]) -> list[str]:
    """The ids without repetitions.

    Raises:
        UserError: there is no such post.
    """
    wanted = list(dict.fromkeys(post_ids))
    known = known_posts(wanted)
    unknown = [post_id for post_id in wanted if post_id not in known]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(f"Post {unknown[0][:80]!r}{more} is not there: `shopvision posts import FILE` brings posts in.")
    return wanted


def known_posts(post_ids: Sequence[str]) -> set[str]:
    """Those of the ids that belong to a post."""
    with connect() as connection:
        return set(connection.scalars(select(Post.post_id).where(among(Post.post_id, post_ids))))


def posts_in_scope(labelling: Labelling, *, everything: bool) -> Iterator[str]:
    """Ids of all posts, or of those that are due, streamed."""
    query = text(f"SELECT posts.post_id {_LABELLED} WHERE {'true' if everything else _DUE} ORDER BY posts.post_id")
    with (
        connect() as connection,
        connection.execute(query, labelling.values, execution_options={"yield_per": ROWS_AT_ONCE}) as result,
    ):
        yield from result.scalars()


def unchanged_posts(labelling: Labelling, post_ids: Sequence[str]) -> set[str]:
    """Those of some posts that need not be looked at again; one whose photo is no use is, once somebody names it."""
    query = text(
        f"SELECT posts.post_id {_LABELLED} WHERE posts.post_id = ANY(:ids) AND NOT {_DUE} AND done.state <> 'failed'"
    )
    with connect() as connection:
        return set(connection.scalars(query, {**labelling.values, "ids": list(post_ids)}))


def same_photos(
    connection: Connection, labelling: Labelling, hashes: Mapping[str, int], but_not: Iterable[str]
) -> dict[str, str]:
    """Post -> the kept post whose photo is nearest to it, where that is near enough.

    Args:
        connection: reads them.
        labelling: whose posts, and what is near enough.
        hashes: of photos by post.
        but_not: posts that do not count.
    """
    if labelling.distance is None or not hashes:
        return {}
    wanted = sorted({band for value in hashes.values() for band in bands(value)})
    values = {**labelling.values, "bands": wanted, "but_not": list(but_not)}
    kept = [(row.post_id, row.photo_hash) for row in connection.execute(text(_PERHAPS_SAME), values)]
    return nearest_photos(hashes, kept, labelling.distance)


def nearest_photos(hashes: Mapping[str, int], kept: Sequence[tuple[str, int]], most: int) -> dict[str, str]:
    """For each hash the first of those of ``kept`` (post, hash) that are nearest, where it is at most so far away."""
    if not kept:
        return {}
    others = np.array([value for _, value in kept], np.int64)
    found = {}
    for post_id, value in hashes.items():
        far = np.bitwise_count(np.bitwise_xor(others, np.int64(value)).view(np.uint64))
        place = int(far.argmin())
        if far[place] <= most:
            found[post_id] = kept[place][0]
    return found
