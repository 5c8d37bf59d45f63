"""What can go wrong, in four kinds that decide what happens next.

Every message is one line that names the thing and the mend; the command line prints it as it is, without a traceback.
"""

from __future__ import annotations


class ShopvisionError(Exception):
    """Base of every error this project raises on purpose."""


class UserError(ShopvisionError):
    """A request that cannot be carried out as given: unknown name, wrong type, missing file. Nothing was changed."""


class TransientError(ShopvisionError):
    """A dependency is away for the moment (database, broker, object store, network): the same work is tried again."""


class JobError(ShopvisionError):
    """The whole job cannot go on (missing weights, wrong dimension): it fails at once, not item by item."""


class ItemError(ShopvisionError):
    """One item cannot be processed. It becomes an item failure; the others go on.

    Attributes:
        code: a short stable reason code (``truncated``, ``not_found``, ...), for counting and filtering.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[ItemError], tuple[str, str]]:
        return (type(self), (self.code, self.message))
