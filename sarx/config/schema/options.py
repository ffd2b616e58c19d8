"""Declared options: one call per dataclass field says its default, range, choices and place in identity."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from functools import cache
from typing import Any

from sarx.config.errors import UserError


def option(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    identity: bool = True,
) -> Any:
    """Declare a configuration field.

    Args:
        default: Value when nothing is said. It is left out of a trial's identity, so it must never change.
        low: Smallest allowed number (inclusive).
        high: Largest allowed number (inclusive).
        above: Number that must be exceeded.
        below: Number that must not be reached.
        choices: Allowed strings; a number beside them passes when the field's type admits it.
        identity: Whether the value changes what is computed and so belongs to ``trial_id``.
    """
    limits = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"limits": limits, "choices": choices, "identity": identity}
    return dataclasses.field(default=default, metadata=metadata)


@cache
def field_types(owner: type[Any]) -> dict[str, tuple[type, ...]]:
    """Return the allowed plain types of each field; ``float | None`` gives ``(float, NoneType)``."""
    hints = typing.get_type_hints(owner)
    names = [item.name for item in dataclasses.fields(owner)]
    return {
        name: typing.get_args(hints[name]) if isinstance(hints[name], types.UnionType) else (hints[name],)
        for name in names
    }


def coerce(value: Any, allowed: tuple[type, ...], dotted: str) -> Any:
    """Return ``value`` as one of the allowed types, without losing information.

    ``1`` becomes ``1.0`` where a float is wanted, ``1.0`` becomes ``1`` where an integer is wanted, and the
    string ``1e-5`` (which YAML 1.1 does not read as a number) becomes a float.

    Raises:
        UserError: If the value has no faithful reading as one of the types.
    """
    kind = type(value)
    if kind is int and value.bit_length() > 64:
        raise UserError("the number is too large", key=dotted)
    if kind in allowed:
        return value + 0.0 if kind is float else value  # -0.0 and 0.0 are one value
    number = value
    if isinstance(value, str) and str not in allowed:
        number = _number(value)
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        if float in allowed and abs(number) <= sys.float_info.max:
            return float(number) + 0.0
        if float in allowed and isinstance(number, float):
            return number  # nan or inf: the range check names it
        if int in allowed and (isinstance(number, int) or number.is_integer()):
            return int(number)
    wanted = " or ".join(
        {"NoneType": "null", "str": "text"}.get(kind.__name__, kind.__name__) for kind in allowed
    )
    raise UserError(f"{value!r} is not {'an' if wanted[0] in 'aeiou' else 'a'} {wanted}", key=dotted)


def _number(text: str) -> int | float | str:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def check_value(value: Any, metadata: typing.Mapping[str, Any], dotted: str) -> None:
    """Check one value against the range and the choices of its field.

    Raises:
        UserError: Naming the dotted key, the value and what is allowed.
    """
    if isinstance(value, str):
        choices = metadata.get("choices")
        if choices is not None and value not in choices:
            raise UserError(f"{value!r} is not one of {', '.join(choices)}", key=dotted)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    limits = metadata.get("limits", {})
    get = limits.get
    low, high, above, below = get("low"), get("high"), get("above"), get("below")
    outside = (
        (isinstance(value, float) and not math.isfinite(value))
        or (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
        or (below is not None and value >= below)
    )
    if outside:
        raise UserError(f"{value!r} is outside the allowed range {describe_range(limits)}", key=dotted)


def describe_range(limits: typing.Mapping[str, float | None]) -> str:
    """Write a range in interval notation, for example ``(0, 1]``."""
    low, high, above, below = (limits.get(k) for k in ("low", "high", "above", "below"))
    left = f"[{low:g}" if low is not None else f"({above:g}" if above is not None else "(-inf"
    right = f"{high:g}]" if high is not None else f"{below:g})" if below is not None else "inf)"
    return f"{left}, {right}"


def check_fields(owner: Any, group: str) -> None:
    """Coerce and check every field of a configuration dataclass; called from ``__post_init__``."""
    for name, kinds, metadata, dotted in _fields_of(owner.__class__, group):
        value = coerce(getattr(owner, name), kinds, dotted)
        check_value(value, metadata, dotted)
        setattr(owner, name, value)


@cache
def _fields_of(
    owner: type[Any], group: str
) -> list[tuple[str, tuple[type, ...], typing.Mapping[str, Any], str]]:
    kinds = field_types(owner)  # type: ignore[arg-type]
    return [
        (item.name, kinds[item.name], item.metadata, f"{group}.{item.name}")
        for item in dataclasses.fields(owner)
    ]
