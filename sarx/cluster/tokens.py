"""Tokens, without which no cluster answers: made here, and readable for their user alone."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from sarx.config.errors import UserError

OWN = Path("~/.ray/auth_token")
"""Where Ray looks for the token of a user's own clusters."""


def make_token(path: Path) -> None:
    """Write a new token that only this user can read; leave one that is there.

    Raises:
        UserError: If others can read the one that is there, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".token-")  # mode 600
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(name, path)  # whole at once, and only where there is none
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                raise UserError(f"others can read the token; chmod 600 {path}", where=str(path)) from None
        finally:
            Path(name).unlink()
    except OSError as error:
        raise UserError(f"the token cannot be written ({error.strerror})", where=str(path)) from None


def own_token(make: bool) -> None:
    """Keep the token of this user's own clusters from others; Ray would make it readable for all.

    What RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH name instead is left as it is.

    Args:
        make: Whether to make it where there is none.

    Raises:
        UserError: If it cannot be written, or belongs to somebody else.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = OWN.expanduser()
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except FileNotFoundError:
        if make:
            make_token(path)
    except OSError as error:
        raise UserError(f"others can read the token ({error.strerror})", where=str(path)) from None


def use_token(path: Path) -> None:
    """Let Ray in this process, and in those that it starts, present this token."""
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
