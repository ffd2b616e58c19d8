"""The smallest difference that a study can detect (protocol 15)."""

from __future__ import annotations

import math


def detectable_effect(seeds: int, rows: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the paired difference, in SDs of the paired difference, found with the given power.

    For a two-sided paired t test of one row that must pass Holm's first step among ``rows`` tests, which is
    what a single real effect among null rows has to do.

    Args:
        seeds: Paired seeds, at least 2.
        rows: Tests in the family.
        power: Wanted probability of detection.
        alpha: Family-wise level.
    """
    from scipy import optimize, stats

    freedom = seeds - 1
    critical = stats.t.ppf(1 - alpha / rows / 2, freedom)

    def miss(effect: float) -> float:
        shift = effect * seeds**0.5
        found = float(stats.nct.sf(critical, freedom, shift))
        opposite = float(stats.nct.cdf(-critical, freedom, shift))
        return found + (0.0 if math.isnan(opposite) else opposite) - power  # nan: far below 1e-9

    high = 1.0
    while miss(high) < 0:
        high *= 1.5
    return float(optimize.brentq(miss, 0.0, high))


def describe_power(seeds: int, rows: int, metric: str, looks: int = 1) -> str:
    """Return one line for the plan; p-values are multiplied by the number of planned looks."""
    if seeds < 2 or rows < 1:
        return (
            f"  with {seeds} seed and {rows} rows nothing is tested; 5 seeds or more give intervals and tests"
        )
    effect = detectable_effect(seeds, rows, alpha=0.05 / looks)
    times = f", times {looks} looks" if looks > 1 else ""
    return (
        f"  {seeds} seeds and {rows} rows in the family detect a difference in {metric} of {effect:.1f} SD "
        f"of the paired difference with 80 % power (paired t, Holm{times})"
    )
