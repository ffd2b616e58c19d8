"""How far the proposals of an arm let the effects of its parameters be told apart."""

from __future__ import annotations

from collections.abc import Sequence

from sarx.search import sampler_qmc, sampler_random
from sarx.search.axes import position
from sarx.study.space import Parameter


def confounding(
    space: Sequence[Parameter], own: Sequence[Parameter], sampler: str, *, seed: int, trials: int
) -> tuple[float, str, str]:
    """Return the largest correlation between two parameters of an arm over its proposals, and which two.

    Each parameter is taken on the axis it is drawn on (log or linear; choices by position). Of tpe, gp and
    cmaes only the start-up points are known before a study runs; of a grid all parameters are crossed, so
    that there is nothing to say.

    Args:
        space: Space of the study, which the proposals come from.
        own: The parameters of the arm.
        sampler: Name of a sampler.
        seed: The study's seed.
        trials: Proposals of the arm, the default at index 0 included; of fewer than 6 nothing is said. With
            tpe, gp or cmaes the number of start-up points.
    """
    import numpy as np

    if len(own) < 2 or trials < 6 or sampler == "grid":
        return 0.0, "", ""
    draw = sampler_random.point if sampler == "random" else sampler_qmc.point
    points = [draw(space, seed, i) for i in range(trials - 1)]
    columns = np.array([[position(p, point[p.key]) for p in own] for point in points])
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(np.abs(np.corrcoef(columns.T)))
    np.fill_diagonal(correlation, 0.0)
    first, second = np.unravel_index(correlation.argmax(), correlation.shape)
    return float(correlation.max()), own[int(first)].key, own[int(second)].key
