"""A parameter's axis: the one number that samplers move along, and the value that stands at it.

Log ranges are taken in their logarithm. Whole numbers and steps have cells of equal width, half a cell beyond
each bound; choices are the whole numbers of their positions. This is Optuna's mapping, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sarx.study.space import Parameter

if TYPE_CHECKING:
    import optuna

TOLERANCE = 1e-6
"""How far, in steps, a value may lie from a multiple of the step."""


def unit_point(space: Sequence[Parameter], units: Sequence[float]) -> dict[str, Any]:
    """Return the point at coordinates in the unit cube, one for each parameter."""
    return {p.key: from_unit(p, unit) for p, unit in zip(space, units, strict=True)}


def from_unit(parameter: Parameter, unit: float) -> Any:
    """Return the value at ``unit`` in [0, 1] of the axis: an int, a float, or one of the declared choices."""
    low, high = _ends(parameter)
    return _value(parameter, low + unit * (high - low))


def to_unit(parameter: Parameter, value: Any) -> float:
    """Return where on the axis, in [0, 1], a value inside the range lies."""
    low, high = _ends(parameter)
    return min(max((position(parameter, value) - low) / (high - low), 0.0), 1.0)


def position(parameter: Parameter, value: Any) -> float:
    """Return the number of a value on its axis: the value, its logarithm, or the position of a choice."""
    if parameter.kind == "choice":
        return float(parameter.choices.index(value))
    return math.log(value) if parameter.log else float(value)


def on_axis(parameter: Parameter, value: Any) -> bool:
    """Return whether a sampler could have proposed a value: inside the range, whole, on a step."""
    if parameter.kind == "choice":
        return value in parameter.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if not parameter.low <= value <= parameter.high:
        return False
    step = _step(parameter)
    return step is None or abs(_cell(parameter, value, step) - (value - parameter.low) / step) <= TOLERANCE


def axes(space: Sequence[Parameter]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return Optuna's distribution of each parameter; choices and steps are counted from 0."""
    return {parameter.key: _distribution(parameter) for parameter in space}


def encode(space: Sequence[Parameter], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point, all of it on its axes, as values of the distributions of ``axes``."""
    return {p.key: _encode(p, point[p.key]) for p in space}


def decode(space: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the point of values of the distributions of ``axes``."""
    return {p.key: _decode(p, values[p.key]) for p in space}


def levels_of(parameter: Parameter) -> int | None:
    """Return how many values a parameter has; None for a continuous range."""
    if parameter.kind == "choice":
        return len(parameter.choices)
    step = _step(parameter)
    return None if step is None else _cell(parameter, parameter.high, step) + 1


def _step(parameter: Parameter) -> float | None:
    return parameter.step or (1 if parameter.kind == "int" else None)


def _cell(parameter: Parameter, value: float, step: float) -> int:
    return round((value - parameter.low) / step)


def _ends(parameter: Parameter) -> tuple[float, float]:
    if parameter.kind == "choice":
        return -0.5, len(parameter.choices) - 0.5
    half = 0.5 * (_step(parameter) or 0.0)
    if parameter.log:
        return math.log(parameter.low - half), math.log(parameter.high + half)
    return float(parameter.low) - half, float(parameter.high) + half


def _value(parameter: Parameter, number: float) -> Any:
    if parameter.kind == "choice":
        return parameter.choices[min(max(math.floor(number + 0.5), 0), len(parameter.choices) - 1)]
    low, high, step = parameter.low, parameter.high, parameter.step
    if parameter.kind == "int":
        low, high, step = int(low), int(high), int(step or 1)
        if parameter.log:
            return min(max(round(math.exp(number)), low), high)
        return min(max(math.floor((number - low) / step + 0.5) * step + low, low), high)
    if step is not None:
        return float(min(max(round((number - low) / step) * step + low, low), high))
    below = math.nextafter(high, high - 1)  # Optuna's ranges are open above
    return float(min(max(math.exp(number) if parameter.log else number, low), below))


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    import optuna

    if parameter.kind == "choice":
        return optuna.distributions.CategoricalDistribution(range(len(parameter.choices)))
    if parameter.step is not None:
        return optuna.distributions.IntDistribution(0, (levels_of(parameter) or 1) - 1)
    if parameter.kind == "int":
        return optuna.distributions.IntDistribution(
            int(parameter.low), int(parameter.high), log=parameter.log
        )
    return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _encode(parameter: Parameter, value: Any) -> int | float:
    if parameter.kind == "choice":
        return parameter.choices.index(value)
    if parameter.step is not None:
        return _cell(parameter, value, parameter.step)
    return round(value) if parameter.kind == "int" else float(value)


def _decode(parameter: Parameter, value: Any) -> Any:
    if parameter.kind == "choice":
        return parameter.choices[int(value)]
    if parameter.step is not None:
        return _value(parameter, parameter.low + int(value) * parameter.step)
    if parameter.kind == "int":
        return min(max(round(value), int(parameter.low)), int(parameter.high))
    return min(max(float(value), parameter.low), parameter.high)
