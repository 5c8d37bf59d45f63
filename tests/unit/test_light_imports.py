"""A producer, beat and Flower import ``tasks``: it must load nothing heavy, and little beside Celery and pydantic.

Who uses the library pays for what he uses.
"""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "torchvision", "timm", "transformers", "faiss", "boto3", "PIL", "pyarrow", "sqlalchemy", "numpy"}
OWN_MODULES = 150  # half more than it takes today; modules are counted because seconds are the machine's

TASKS = "import tasks; assert tasks.refresh_embeddings.refresh_embeddings.name == 'tasks.refresh_embeddings'"
LIBRARIES = "import celery.app.base, pydantic.json_schema, pydantic.types; pydantic.BaseModel"


def loaded_modules(imports: str) -> set[str]:
    """What a fresh process has loaded after some imports."""
    script = f"{imports}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_tasks_is_light() -> None:
    modules = loaded_modules(TASKS)
    assert not modules & HEAVY
    assert len(modules - loaded_modules(LIBRARIES)) <= OWN_MODULES


def test_importing_the_library_loads_what_is_used() -> None:
    assert {name for name in loaded_modules("import shopvision") if name.startswith("shopvision")} == {"shopvision"}
    assert not loaded_modules("from shopvision import Item, UserError, get_settings") & HEAVY
