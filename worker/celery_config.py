"""Every Celery setting that matters. Postgres is the truth; Celery and Redis only carry.

Late acknowledgement and a visibility timeout above the hard time limit mean that a message may be delivered more than
once. That is expected: a chunk can be claimed only once per attempt, and only the current attempt may commit.
"""

from __future__ import annotations

from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES

from shopvision.settings import get_settings

_settings = get_settings()

QUEUES = ("gpu.embed", "gpu.score", "gpu.rank", "io", "index", "control")

# On Redis 0 goes first, and is what a message without a priority has: what producers send waits behind no chunk. The
# steps (0, 3, 6, 9; one Redis list each) stay Celery's own, so that a producer's settings cannot miss them.
URGENT_PRIORITY = 0
ORDINARY_PRIORITY = 6

# Takes the place of Kombu's own; by name, so that it is loaded with the first connection.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "worker.redis_transport:Transport"))
visibility_timeout = 3600
broker_url = _settings.broker_url.get_secret_value() if _settings.broker_url else "redis://127.0.0.1:6379/0"
broker_transport_options = {
    "visibility_timeout": visibility_timeout,
    "health_check_interval": 25,
    "socket_keepalive": True,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 3,
}
broker_connection_retry_on_startup = True
broker_connection_max_retries = None

task_serializer = result_serializer = "json"
accept_content = result_accept_content = ["json"]
task_ignore_result = True
task_acks_late = True
# The ledger counts deaths and sends again; Celery doing so too would only make duplicates.
task_retry_on_worker_lost = False
task_reject_on_worker_lost = False
task_track_started = True
task_send_sent_event = True
worker_send_task_events = True
task_time_limit = _settings.time_limit_seconds

task_queues = [Queue(name) for name in QUEUES]
task_default_queue = "control"
task_create_missing_queues = False
task_routes = {"tasks.upsert_*": {"queue": "io"}, "tasks.delete_*": {"queue": "io"}}

worker_prefetch_multiplier = 1
worker_pool = "prefork"
worker_pool_start_method = "spawn"
worker_proc_alive_timeout = 60
worker_max_tasks_per_child = 500
# Safe only with the fencing token: the loser notices at its next batch border.
worker_cancel_long_running_tasks_on_connection_loss = False
worker_hijack_root_logger = False
# Whoever reaches the broker could stop workers by it. Only a Flower that may do so needs it.
worker_enable_remote_control = not _settings.flower_read_only

# The only entries are ticks that look into Postgres for what is due, so the scheduler keeps no state: a second beat, a
# restart or an emptied Redis changes nothing.
beat_scheduler = "celery.beat:Scheduler"
beat_max_loop_interval = 5
beat_schedule = {
    "plan_due_jobs": {"task": "worker.plan_due_jobs", "schedule": _settings.plan_interval_seconds},
    "prune": {"task": "worker.prune", "schedule": 3600.0},
}
timezone = "UTC"
imports = [*_settings.kind_modules, "worker.maintenance"]
