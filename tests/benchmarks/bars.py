"""The line that ends a benchmark: one for each bar."""

from __future__ import annotations


def at_most(name: str, value: float, bound: float) -> bool:
    """Print the line of a bar that is an upper bound and return whether it is met."""
    return _judge(name, value, "<=", bound, value <= bound)


def at_least(name: str, value: float, bound: float) -> bool:
    """Print the line of a bar that is a lower bound and return whether it is met."""
    return _judge(name, value, ">=", bound, value >= bound)


def _judge(name: str, value: float, sign: str, bound: float, passed: bool) -> bool:
    print(f"BAR {name} {value:.3f} {sign} {bound:g} {'pass' if passed else 'fail'}")
    return passed
