"""The job ledger in Postgres: jobs, chunks, item failures and the outbox. Redis may be emptied; nothing is lost."""
