"""How jobs are run: Celery app, job ledger, leases, outbox, reaper, health, metrics, local stack, command line."""

from worker.deferred_compiler import defer_the_compiler

defer_the_compiler()
