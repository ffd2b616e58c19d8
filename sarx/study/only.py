"""Which part of a study runs now: ``--arms``."""

from __future__ import annotations

from collections.abc import Sequence

from sarx.config.errors import UserError, nearest
from sarx.study.arm import Arm


def named_arms(text: str | None, arms: Sequence[Arm]) -> frozenset[str] | None:
    """Return the names in a list such as ``sar,no_pull``; None, for all arms, without a list.

    Raises:
        UserError: For an empty list, or a name that no arm has.
    """
    if text is None:
        return None
    known = [arm.name for arm in arms]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"no arm is called {name!r}; {nearest(name, known)}", where="--arms")
    return frozenset(names)
