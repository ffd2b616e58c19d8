"""Errors of the processes that read files ahead, as their own message and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from sarx.config.errors import UserError

T = TypeVar("T")
MARK = "UserError: "


def plainly(batches: Iterable[T]) -> Iterator[T]:
    """Yield what a data loader gives; a worker's ``UserError`` loses the traceback that torch puts in.

    Raises:
        UserError: With the message of the worker's error.
    """
    try:
        yield from batches
    except UserError as error:
        lines = [line for line in str(error).splitlines() if MARK in line]
        if "Traceback" not in str(error) or not lines:
            raise
        raise UserError(lines[-1].partition(MARK)[2]) from None
