"""first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


# Each statement that touches embeddings leaves a note for the index, whoever runs it: the pipeline, a catalogue
# import that removes items, or an operator by hand.
NOTE_CHANGES = """
CREATE FUNCTION note_index_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO index_changes (model_version_id, image_id)
    SELECT model_version_id, image_id FROM changed ORDER BY model_version_id, image_id
    ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval('index_change_revision');
    RETURN NULL;
END $$;
CREATE TRIGGER index_changes_from_insert AFTER INSERT ON embeddings
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_index_changes();
CREATE TRIGGER index_changes_from_delete AFTER DELETE ON embeddings
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_index_changes();

-- EXECUTE plans anew each time: a cached plan remembers how small the transition tables were when it was made.
CREATE FUNCTION note_vector_updates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'INSERT INTO index_changes (model_version_id, image_id)
             SELECT after.model_version_id, after.image_id
             FROM after JOIN before USING (model_version_id, image_id)
             WHERE after.vector IS DISTINCT FROM before.vector
             ORDER BY 1, 2
             ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval(''index_change_revision'')';
    RETURN NULL;
END $$;
CREATE TRIGGER index_changes_from_update AFTER UPDATE ON embeddings
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION note_vector_updates();

CREATE FUNCTION note_category_updates() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE moved text[];
BEGIN
    EXECUTE 'SELECT array_agg(item_id) FROM after JOIN before USING (item_id)
             WHERE after.category IS DISTINCT FROM before.category' INTO moved;
    IF moved IS NOT NULL THEN
        INSERT INTO index_changes (model_version_id, image_id)
        SELECT model_version_id, image_id FROM item_images JOIN embeddings USING (image_id)
        WHERE item_id = ANY (moved)
        ORDER BY 1, 2
        ON CONFLICT (model_version_id, image_id) DO UPDATE SET revision = nextval('index_change_revision');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER index_changes_from_category AFTER UPDATE ON items
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION note_category_updates();

CREATE FUNCTION notify_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A statement that inserts nothing fires the trigger too; notifying then would keep the relay awake for ever.
    IF EXISTS (SELECT FROM inserted) THEN
        NOTIFY shopvision_outbox;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_notify AFTER INSERT ON outbox
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION notify_outbox();
"""


def upgrade() -> None:
    op.execute("CREATE SEQUENCE index_change_revision")
    op.create_table(
        "index_changes",
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "revision", sa.BigInteger(), server_default=sa.text("nextval('index_change_revision')"), nullable=False
        ),
        sa.PrimaryKeyConstraint("model_version_id", "image_id", name=op.f("pk_index_changes")),
    )
    op.create_table(
        "items",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True, comment="path, parts joined by /"),
        sa.Column(
            "attributes",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
            comment="[{key, value}], keys may repeat",
        ),
        sa.Column(
            "sku_attributes", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False
        ),
        sa.Column("price", sa.Numeric(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="keys of the source we have no column for",
        ),
        sa.Column("source_updated_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="of the whole record, pictures included: equal means unchanged",
        ),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_items")),
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(op.f("ix_items_category"), "items", ["category"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column(
            "source",
            sa.Text(),
            nullable=False,
            comment="who asked: cli, task, schedule:<name>, retry, or the caller's own word",
        ),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("phase", sa.Text(), server_default=sa.text("'split'"), nullable=False),
        sa.Column("items_total", sa.BigInteger(), nullable=True),
        sa.Column("items_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "items_skipped",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="of items_done: nothing had changed",
        ),
        sa.Column("items_failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "chunks_left", sa.BigInteger(), server_default=sa.text("1"), nullable=False, comment="of the current phase"
        ),
        sa.Column(
            "counters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="numbers the kind keeps",
        ),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=True, comment="first chunk claimed"),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_jobs_state")),
        sa.ForeignKeyConstraint(["retry_of"], ["jobs.job_id"], name=op.f("fk_jobs_retry_of"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("kind", "idempotency_key", name=op.f("uq_jobs_kind_idempotency_key")),
    )
    op.create_index("ix_jobs_state_created_at", "jobs", ["state", "created_at"], unique=False)
    op.create_table(
        "model_versions",
        sa.Column("model_version_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("model_version_id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("name", "tag", name=op.f("uq_model_versions_name_tag")),
    )
    op.create_table(
        "plans",
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("date", sa.Text(), nullable=True),
        sa.Column("cat1", sa.Text(), nullable=True),
        sa.Column("cat2", sa.Text(), nullable=True),
        sa.Column("cat3", sa.Text(), nullable=True),
        sa.Column("cat4", sa.Text(), nullable=True),
        sa.Column("keywords", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("extra", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("plan_id", name=op.f("pk_plans")),
    )
    op.create_table(
        "chunks",
        sa.Column("chunk_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("item_keys", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("item_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'ready'"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "deaths",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="attempts that ended without a word",
        ),
        sa.Column(
            "half",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="came from a chunk that killed its workers",
        ),
        sa.Column("lease_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column(
            "sent_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="when its newest message left the outbox",
        ),
        sa.Column(
            "not_before",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="back-off after an error",
        ),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('ready', 'leased', 'done', 'divided', 'cancelled', 'failed')", name=op.f("ck_chunks_state")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_chunks_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("chunk_id", name=op.f("pk_chunks")),
    )
    op.create_index(
        "ix_chunks_open",
        "chunks",
        ["state"],
        unique=False,
        postgresql_where=sa.text("state IN ('ready', 'leased')"),
    )
    op.create_index("ix_chunks_job_id_state", "chunks", ["job_id", "state"], unique=False)
    op.create_table(
        "index_generations",
        sa.Column("generation_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False, comment="indexes/<name>/generations/<model_tag>/<utc>-<short id>"),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="published, refused, collected"),
        sa.Column("is_current", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("manifest", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("bytes_uploaded", sa.BigInteger(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.model_version_id"],
            name=op.f("fk_index_generations_model_version_id"),
        ),
        sa.PrimaryKeyConstraint("generation_id", name=op.f("pk_index_generations")),
        sa.UniqueConstraint("name", "path", name=op.f("uq_index_generations_name_path")),
    )
    op.create_index(
        "uq_index_generations_current",
        "index_generations",
        ["name"],
        unique=True,
        postgresql_where=sa.text("is_current"),
    )
    op.create_table(
        "schedule_windows",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("window_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedule_windows")),
    )
    op.create_table(
        "item_failures",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("item_key", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("failed_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_item_failures_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "item_key", name=op.f("pk_item_failures")),
    )
    op.create_table(
        "item_images",
        sa.Column("image_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False, comment="0 leads"),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("view", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["item_id"], ["items.item_id"], name=op.f("fk_item_images_item_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_item_images")),
        sa.UniqueConstraint("item_id", "uri", name=op.f("uq_item_images_item_id_uri")),
    )
    op.create_table(
        "model_roles",
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("previous_version_id", sa.BigInteger(), nullable=True),
        sa.Column("activated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.model_version_id"], name=op.f("fk_model_roles_model_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["previous_version_id"],
            ["model_versions.model_version_id"],
            name=op.f("fk_model_roles_previous_version_id"),
        ),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_model_roles")),
    )
    op.create_table(
        "plan_items",
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.plan_id"], name=op.f("fk_plan_items_plan_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("plan_id", "item_id", name=op.f("pk_plan_items")),
    )
    op.create_index(op.f("ix_plan_items_item_id"), "plan_items", ["item_id"], unique=False)
    op.create_table(
        "embeddings",
        sa.Column("model_version_id", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("image_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "source_fingerprint",
            sa.Text(),
            nullable=False,
            comment="cheap mark of the source (size and mtime, ETag): equal means unchanged",
        ),
        sa.Column("vector", sa.LargeBinary(), nullable=False, comment="little-endian float16, unit length"),
        sa.Column("embedded_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["item_images.image_id"], name=op.f("fk_embeddings_image_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.model_version_id"], name=op.f("fk_embeddings_model_version_id")
        ),
        sa.PrimaryKeyConstraint("model_version_id", "image_id", name=op.f("pk_embeddings")),
    )
    op.create_index(op.f("ix_embeddings_image_id"), "embeddings", ["image_id"], unique=False)
    op.create_index(
        "ix_embeddings_model_version_id_image_sha256", "embeddings", ["model_version_id", "image_sha256"], unique=False
    )
    op.create_table(
        "outbox",
        sa.Column("message_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("chunk_id", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("not_before", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["chunk_id"], ["chunks.chunk_id"], name=op.f("fk_outbox_chunk_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_outbox")),
    )
    op.create_index(op.f("ix_outbox_chunk_id"), "outbox", ["chunk_id"], unique=False)
    op.create_index(
        "ix_outbox_unsent", "outbox", ["queue", "message_id"], unique=False, postgresql_where=sa.text("sent_at IS NULL")
    )
    op.execute(NOTE_CHANGES)


def downgrade() -> None:
    op.execute(
        "DROP TABLE index_changes, items, jobs, model_versions, plans, chunks, "
        "index_generations, schedule_windows, item_failures, item_images, model_roles, plan_items, embeddings, outbox"
    )
    op.execute("DROP FUNCTION note_index_changes, note_vector_updates, note_category_updates, notify_outbox")
    op.execute("DROP SEQUENCE index_change_revision")
