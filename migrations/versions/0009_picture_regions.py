"""regions of pictures, and vectors by region."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

KINDS = "'image_encoder', 'composed_encoder'"

# A picture may have several vectors, of which one statement may touch several: it is noted once. The array is looked up
# once per statement, not once per row.
NOTE_CHANGES = """
CREATE OR REPLACE FUNCTION note_index_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO index_changes (model_version_id, image_id)
    SELECT DISTINCT model_version_id, image_id FROM changed WHERE {indexed} ORDER BY model_version_id, image_id
    ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval('index_change_revision');
    RETURN NULL;
END $$;

-- EXECUTE plans anew each time: a cached plan remembers how small the transition tables were when it was made.
CREATE OR REPLACE FUNCTION note_vector_updates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE $query$
        INSERT INTO index_changes (model_version_id, image_id)
        SELECT DISTINCT model_version_id, image_id FROM after JOIN before USING ({key})
        WHERE after.vector IS DISTINCT FROM before.vector AND {indexed}
        ORDER BY 1, 2
        ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval('index_change_revision') $query$;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_category_updates() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE moved text[];
BEGIN
    EXECUTE 'SELECT array_agg(item_id) FROM after JOIN before USING (item_id)
             WHERE after.category IS DISTINCT FROM before.category' INTO moved;
    IF moved IS NOT NULL THEN
        INSERT INTO index_changes (model_version_id, image_id)
        SELECT DISTINCT model_version_id, image_id FROM item_images JOIN embeddings USING (image_id)
        WHERE item_id = ANY (moved) AND {indexed}
        ORDER BY 1, 2
        ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval('index_change_revision');
    END IF;
    RETURN NULL;
END $$;
"""


def note_changes(kinds: str, key: str) -> str:
    """The functions behind the triggers, for models of some kinds and the table's key."""
    versions = f"SELECT model_version_id FROM model_versions WHERE card->>'kind' IN ({kinds})"  # noqa: S608 - ours
    return NOTE_CHANGES.format(indexed=f"model_version_id = ANY (ARRAY({versions}))", key=key)


def upgrade() -> None:
    op.add_column(
        "embeddings",
        sa.Column(
            "region",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="0: the whole picture; else a row of picture_regions",
        ),
        if_not_exists=True,
    )
    # While the index of the new key is built, rows are read and written as before. One that was left half built by an
    # attempt before is of no use.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS embeddings_by_region")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY embeddings_by_region ON embeddings (model_version_id, image_id, region)"
        )
    op.execute(
        "ALTER TABLE embeddings DROP CONSTRAINT pk_embeddings,"
        " ADD CONSTRAINT pk_embeddings PRIMARY KEY USING INDEX embeddings_by_region"
    )
    op.create_table(
        "picture_regions",
        sa.Column("detector_version_id", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("region", sa.SmallInteger(), nullable=False, comment="0: the whole picture; from 1 by falling score"),
        sa.Column("image_sha256", sa.LargeBinary(), nullable=False, comment="of the bytes that the detector looked at"),
        sa.Column(
            "box",
            postgresql.ARRAY(sa.REAL()),
            nullable=False,
            comment="left, top, right, bottom; pixels of the upright picture at full scale",
        ),
        sa.Column("label", sa.Text(), nullable=True, comment="class, in the detector's words; null: the whole picture"),
        sa.Column("score", sa.REAL(), nullable=True),
        sa.Column("colour", postgresql.ARRAY(sa.REAL()), nullable=True, comment="of the garment: CIELAB L*, a*, b*"),
        sa.Column("found_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("cardinality(box) = 4", name=op.f("ck_picture_regions_box")),
        sa.CheckConstraint("cardinality(colour) = 3", name=op.f("ck_picture_regions_colour")),
        sa.CheckConstraint(
            "(region = 0) = (label IS NULL) AND (region = 0) = (score IS NULL)", name=op.f("ck_picture_regions_whole")
        ),
        sa.ForeignKeyConstraint(
            ["detector_version_id"],
            ["model_versions.model_version_id"],
            name=op.f("fk_picture_regions_detector_version_id"),
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["item_images.image_id"], name=op.f("fk_picture_regions_image_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("detector_version_id", "image_id", "region", name=op.f("pk_picture_regions")),
    )
    op.create_index(op.f("ix_picture_regions_image_id"), "picture_regions", ["image_id"])
    for column in ("image_sha256", "found_at"):
        name = f"ix_picture_regions_detector_version_id_{column}"
        op.create_index(name, "picture_regions", ["detector_version_id", column])
    op.execute(note_changes(KINDS, "model_version_id, image_id, region"))


def downgrade() -> None:
    op.drop_table("picture_regions")
    op.execute("DELETE FROM embeddings WHERE region <> 0")
    op.execute(
        "ALTER TABLE embeddings DROP CONSTRAINT pk_embeddings, DROP COLUMN region,"
        " ADD CONSTRAINT pk_embeddings PRIMARY KEY (model_version_id, image_id)"
    )
    op.execute(note_changes("'image_encoder'", "model_version_id, image_id"))
