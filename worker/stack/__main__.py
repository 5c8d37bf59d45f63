"""``python -m worker.stack``: the supervisor of a detached stack."""

from __future__ import annotations

import sys

from shopvision.errors import ShopvisionError
from shopvision.settings import get_settings
from worker.logs import configure_logging
from worker.stack.supervisor import Supervisor

if __name__ == "__main__":
    configure_logging()
    try:
        Supervisor(get_settings().home).run()
    except (ShopvisionError, OSError) as error:
        sys.exit(str(error))
