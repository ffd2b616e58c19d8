"""Search spaces as data: Optuna's words (low, high, log, step, choices), both bounds inclusive."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sarx.config.errors import UserError
from sarx.config.schema.options import check_value, coerce, describe_range, field_types


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One searched option: a range of numbers or a list of choices.

    ``kind`` is ``float``, ``int`` or ``choice``.
    """

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()


MAX_CELLS = 100_000
KEYS = ("low", "high", "log", "step", "choices")


def read_parameter(key: str, values: dict[str, Any], field: dataclasses.Field[Any], owner: type) -> Parameter:
    """Check one entry of ``search.parameters`` against the option that it searches.

    Args:
        key: Dotted option key.
        values: The entry: low, high, log, step or choices.
        field: The option's field, which knows its range and choices.
        owner: The dataclass of the field.

    Raises:
        UserError: With ``key`` set to the part at fault, relative to ``search.parameters``.
    """
    allowed = field_types(owner)[field.name]
    if "choices" in values:
        if others := [name for name in ("low", "high", "log", "step") if name in values]:
            raise UserError(f"{others[0]} does not go with choices", key=f"{key}.{others[0]}")
        return _read_choices(key, values["choices"], field, allowed)
    for name in ("low", "high"):
        if name not in values:
            raise UserError(f"{name} is missing; give low and high, or choices", key=key)
    if not {int, float} & set(allowed):
        raise UserError("is not a number; give choices instead of low and high", key=key)
    whole = float not in allowed
    bounds = []
    for name in ("low", "high"):
        at = f"{key}.{name}"
        bound = coerce(values[name], (int,) if whole else (float,), at)
        check_value(bound, field.metadata, at)
        bounds.append(bound)
    low, high = bounds
    if low >= high:
        raise UserError(f"low = {low:g} must be below high = {high:g}", key=f"{key}.low")
    log = coerce(values.get("log", False), (bool,), f"{key}.log")
    if log and low <= 0:
        raise UserError(f"a log range needs low > 0, found {low:g}", key=f"{key}.low")
    step = values.get("step")
    if step is not None:
        step = coerce(step, (int,) if whole else (float,), f"{key}.step")
        if log:
            raise UserError("step does not go with log", key=f"{key}.step")
        if not 0 < step <= high - low:
            raise UserError(
                f"{step:g} must be above 0 and at most high - low = {high - low:g}", key=f"{key}.step"
            )
        if not math.isclose((high - low) / step, round((high - low) / step), abs_tol=1e-9):
            raise UserError(f"high - low = {high - low:g} is not a multiple of it", key=f"{key}.step")
    return Parameter(key=key, kind="int" if whole else "float", low=low, high=high, log=log, step=step)


def _read_choices(key: str, raw: Any, field: dataclasses.Field[Any], allowed: tuple[type, ...]) -> Parameter:
    at = f"{key}.choices"
    if not isinstance(raw, list) or len(raw) < 2:
        raise UserError("expected a list of at least two values", key=at)
    values = []
    for item in raw:
        value = coerce(item, allowed, at)
        check_value(value, field.metadata, at)
        values.append(value)
    if len(set(values)) < len(values):
        raise UserError("a value stands twice", key=at)
    return Parameter(key=key, kind="choice", choices=tuple(values))


def describe(parameter: Parameter) -> str:
    """Write a parameter as one short text, for plans and tables."""
    if parameter.kind == "choice":
        return "{" + ", ".join(map(str, parameter.choices)) + "}"
    kind = " log" if parameter.log else f" step {parameter.step:g}" if parameter.step else ""
    return describe_range({"low": parameter.low, "high": parameter.high}) + kind


def as_range(parameter: Parameter) -> dict[str, Any]:
    """Return a parameter without its key as plain values; what does not apply to it is left out."""
    if parameter.kind == "choice":
        return {"kind": "choice", "choices": list(parameter.choices)}
    found: dict[str, Any] = {"kind": parameter.kind, "low": parameter.low, "high": parameter.high}
    found |= {"log": True} if parameter.log else {}
    return found | ({"step": parameter.step} if parameter.step else {})


def contains(parameter: Parameter, value: Any) -> bool:
    """Return whether a value lies in a parameter's range, or is one of its choices."""
    if parameter.kind == "choice":
        return value in parameter.choices
    return isinstance(value, (int, float)) and parameter.low <= value <= parameter.high


def levels(parameter: Parameter) -> tuple[Any, ...]:
    """Return the values of a parameter that has finitely many: choices, whole numbers, steps.

    Raises:
        UserError: For a range without steps.
    """
    if parameter.kind == "choice":
        return parameter.choices
    step = parameter.step or (1 if parameter.kind == "int" and not parameter.log else None)
    if step is None:
        raise UserError(
            "a grid needs finitely many values; give choices, or a step",
            key=f"search.parameters.{parameter.key}",
        )
    count = round((parameter.high - parameter.low) / step) + 1
    values = (parameter.low + i * step for i in range(count))
    return tuple(int(value) if parameter.kind == "int" else min(value, parameter.high) for value in values)


def cells(space: Sequence[Parameter]) -> int:
    """Return the number of cells of the grid over a space.

    Raises:
        UserError: If a parameter has no finite list of values, or if there are more than ``MAX_CELLS``.
    """
    count = math.prod(len(levels(parameter)) for parameter in space)
    if count > MAX_CELLS:
        raise UserError(f"the grid has {count} cells, more than {MAX_CELLS}", key="search.parameters")
    return count
