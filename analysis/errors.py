"""The one exception for what a user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that a user can mend: printed as one message, exit code 2, never a traceback."""
