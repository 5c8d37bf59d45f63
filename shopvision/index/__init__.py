"""The search index: immutable generations in object storage, published from Postgres, read without it."""
