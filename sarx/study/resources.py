"""What a single training occupies, from its command line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sarx.config.compose import parse_overrides
from sarx.config.errors import UserError, nearest
from sarx.study.schema import Resources

GROUP = "resources."


def split_resources(
    texts: Sequence[str], before: Mapping[str, Any], threads: int | None
) -> tuple[list[str], Resources]:
    """Return the ``key=value`` texts that are not of ``resources``, and the resources.

    Args:
        texts: All of them.
        before: Resources where the texts do not say.
        threads: ``--threads``, another way to say ``resources.cpus_per_worker``; None if it was not given.

    Raises:
        UserError: For an unknown resource or a value outside its range.
    """
    own = [text for text in texts if text.startswith(GROUP)]
    given = {key.removeprefix(GROUP): value for key, value in parse_overrides(own).items()}
    known = [item.name for item in dataclasses.fields(Resources)]
    for key in given:
        if key not in known:
            raise UserError(f"unknown key; {nearest(key, known)}", key=f"{GROUP}{key}")
    if threads is not None:
        if "cpus_per_worker" in given:
            raise UserError("resources.cpus_per_worker says the same; give one of the two", where="--threads")
        if threads < 1:
            raise UserError(f"{threads} is outside [1, {os.cpu_count()}]", where="--threads")
        given["cpus_per_worker"] = threads
    return [text for text in texts if text not in own], Resources(**{**before, **given})
