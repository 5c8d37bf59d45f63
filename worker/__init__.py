"""How jobs are run: Celery app, job ledger, leases, outbox, reaper, health, metrics, local stack, command line."""
