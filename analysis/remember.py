"""Frames that several tables need are made once for each ledger."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import polars as pl

P = ParamSpec("P")
T = TypeVar("T")


def once_per_ledger(
    make: Callable[Concatenate[pl.DataFrame, P], T],
) -> Callable[Concatenate[pl.DataFrame, P], T]:
    """Let a function of the events remember what it returned, for as long as the frame of events lives.

    Nobody may change what it returns, nor the events. Further arguments are hashable, or lists of such.
    """
    known: dict[tuple[int, Any], T] = {}

    @functools.wraps(make)
    def remembered(events: pl.DataFrame, *args: P.args, **kwargs: P.kwargs) -> T:
        given = (*args, *sorted(kwargs.items()))
        key = (id(events), tuple(tuple(part) if isinstance(part, list) else part for part in given))
        if key not in known:
            known[key] = make(events, *args, **kwargs)
            weakref.finalize(events, known.pop, key, None)
        return known[key]

    return remembered  # type: ignore[return-value]
