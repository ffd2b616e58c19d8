"""The one exception for mistakes that a user can mend."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """A mistake in what the user wrote or asked for.

    Entry points print it as one message and exit with code 2; it never shows a traceback. The message says
    what is wrong, where, and what would be right.

    Args:
        message: What is wrong and what would be right.
        key: The dotted key at fault, if there is one; a reader of files turns it into file:line:column.
        where: Position such as ``study.yaml:12:3``.
    """

    def __init__(self, message: str, *, key: str | None = None, where: str | None = None) -> None:
        """Keep the parts and the whole text."""
        super().__init__(": ".join(part for part in (where, key, message) if part))
        self.message = message
        self.key = key
        self.where = where


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``did you mean 'optim.lr'?`` or, with nothing close, the known names."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:  # a misspelt group or a missing prefix: compare the last part alone
        tails = {full.rsplit(".", 1)[-1]: full for full in names}
        close = [
            tails[tail] for tail in difflib.get_close_matches(name.rsplit(".", 1)[-1], tails, n=1, cutoff=0.6)
        ]
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}"


def exit_code(run: Callable[[], int], stopped: str) -> int:
    """Run an entry point and return its exit code: a user's mistake is one line on stderr and 2, Ctrl-C 130.

    Args:
        run: What to do.
        stopped: What to say after Ctrl-C.
    """
    try:
        return run()
    except UserError as error:
        code, message = 2, "error: " + " ".join(str(error).splitlines())
    except KeyboardInterrupt:
        code, message = 130, f"\n{stopped}"
    with contextlib.suppress(BrokenPipeError):  # the same Ctrl-C has ended who reads it, as in ``2>&1 | tee``
        print(message, file=sys.stderr)
    return code
