"""A producer, beat and Flower import ``tasks``: it must load quickly and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "torchvision", "timm", "transformers", "faiss", "boto3", "PIL", "pyarrow", "sqlalchemy", "numpy")
SECONDS = 0.5
OWN_SHARE = 1.35  # of what Celery and pydantic alone take, on a machine too slow for the absolute limit
RUNS = 6

TASKS = "import tasks; assert tasks.refresh_embeddings.refresh_embeddings.name == 'tasks.refresh_embeddings'"
LIBRARIES = "import celery.app.base, pydantic.json_schema, pydantic.types; pydantic.BaseModel"
SCRIPT = """
import sys, time
started = time.process_time()
{imports}
seconds = time.process_time() - started
print([name for name in {heavy!r} if name in sys.modules], seconds)
"""


def cost(imports: str) -> float:
    """Processor seconds of some imports in a fresh process, none of them heavy."""
    script = SCRIPT.format(imports=imports, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded, seconds = done.stdout.rsplit(maxsplit=1)
    assert loaded == "[]"
    return float(seconds)


def test_importing_tasks_is_light() -> None:
    """The best of a few runs in turn: other load on the machine says nothing about the imports."""
    pairs = [(cost(TASKS), cost(LIBRARIES)) for _ in range(RUNS)]
    seconds, libraries = (min(column) for column in zip(*pairs, strict=True))
    assert seconds < max(SECONDS, OWN_SHARE * libraries)
