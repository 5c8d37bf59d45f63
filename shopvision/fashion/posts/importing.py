"""Files of posts into Postgres, so that jobs find them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from shopvision.database import connect
from shopvision.errors import ItemError
from shopvision.fashion.posts.records import SocialPost, opened_posts
from shopvision.fashion.posts.store import ROWS_AT_ONCE, upsert_posts


@dataclass
class PostsReport:
    """What became of the rows of a file.

    Attributes:
        rows: read.
        written: posts that are new or changed.
        unchanged: posts that were there in just this way before.
        refused: why a row is no post.
    """

    rows: int = 0
    written: int = 0
    unchanged: int = 0
    refused: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        counts = {"rows": self.rows, "written": self.written, "unchanged": self.unchanged}
        return {**counts, "refused": len(self.refused), "errors": self.refused}


def import_posts(location: str, images: str | None = None) -> PostsReport:
    """Store the posts of a file; good rows go in, whatever the others are. Safe to repeat.

    Args:
        location: JSONL, CSV or Parquet, also ``.gz``, also ``s3://``; see ``records``.
        images: what relative pictures start from; the file's own folder where it is None.

    Raises:
        UserError: the file cannot be read, or there is no such folder of pictures.
    """
    report = PostsReport()
    with opened_posts(location, images) as rows:
        while part := list(islice(rows, ROWS_AT_ONCE)):
            posts = [post for _, post in part if isinstance(post, SocialPost)]
            report.refused += [error.message for _, error in part if isinstance(error, ItemError)]
            with connect() as connection:
                written = upsert_posts(connection, posts)
            report.rows += len(part)
            report.written += written
            report.unchanged += len(posts) - written
    return report
