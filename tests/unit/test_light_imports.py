"""A producer, beat and Flower import ``tasks``: it must load quickly and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "torchvision", "timm", "transformers", "faiss", "boto3", "PIL", "pyarrow", "sqlalchemy", "numpy")
SECONDS = 0.5
OWN_SHARE = 1.3  # of what Celery and pydantic alone take, on a machine too slow for the absolute limit
RUNS = 6

SCRIPT = """
import sys, time
started = time.process_time()
{imports}
seconds = time.process_time() - started
print([name for name in {heavy!r} if name in sys.modules], seconds)
"""


def cost(imports: str) -> float:
    """Processor seconds of some imports, the best of a few runs: other load on the machine says nothing about them."""
    best = float("inf")
    for _ in range(RUNS):
        script = SCRIPT.format(imports=imports, heavy=HEAVY)
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        loaded, seconds = done.stdout.rsplit(maxsplit=1)
        assert loaded == "[]"
        best = min(best, float(seconds))
    return best


def test_importing_tasks_is_light() -> None:
    seconds = cost(
        "import tasks; assert tasks.refresh_embeddings.refresh_embeddings.name == 'tasks.refresh_embeddings'"
    )
    libraries = cost("import celery.app.base, pydantic.json_schema, pydantic.types; pydantic.BaseModel")
    assert seconds < max(SECONDS, OWN_SHARE * libraries)
