"""Importance of parameters, against optuna's evaluator."""

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from analysis.importance import TARGET, importance
from analysis.ped_anova import best_share, divergence
from analysis.space import Range

SPACE = {
    "rate": Range("float", 1e-4, 1.0, log=True),
    "share": Range("float", -1.0, 2.5),
    "step": Range("float", 0.0, 1.0, step=0.25),
    "layers": Range("int", 1, 6),
    "width": Range("int", 8, 512, log=True),
    "many": Range("int", 0, 1000, step=10.0),
    "kind": Range("choice", choices=("a", 2, True)),
}


def points_of(random: np.random.Generator, count: int) -> list[dict[str, Any]]:
    return [
        {
            "rate": float(10 ** random.uniform(-4, 0)),
            "share": float(random.uniform(-1, 2.5)),
            "step": float(random.integers(5) / 4),
            "layers": int(random.integers(1, 7)),
            "width": int(random.integers(8, 513)),
            "many": int(random.integers(101) * 10),
            "kind": SPACE["kind"].choices[random.integers(3)],
        }
        for _ in range(count)
    ]


def distribution(searched: Range) -> Any:
    if searched.kind == "choice":
        return optuna.distributions.CategoricalDistribution([str(choice) for choice in searched.choices])
    if searched.kind == "int":
        step = 1 if searched.log else int(searched.step or 1)
        low, high = int(searched.low), int(searched.high)
        return optuna.distributions.IntDistribution(low, high, log=searched.log, step=step)
    return optuna.distributions.FloatDistribution(
        searched.low, searched.high, log=searched.log, step=searched.step
    )


def by_optuna(points: list[dict[str, Any]], losses: list[float]) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    kinds = {name: distribution(SPACE[name]) for name in points[0]}
    for point, loss in zip(points, losses, strict=True):
        params = {name: str(value) if name == "kind" else value for name, value in point.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=loss))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=TARGET)
    return dict(get_param_importances(study, evaluator=evaluator))


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_optuna(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = points_of(random, int(random.integers(20, 120)))
    losses = [
        (math.log10(point["rate"]) + 2) ** 2 + (point["kind"] == "a") + 0.3 * random.normal()
        for point in points
    ]
    if seed % 2:
        losses = [round(loss) for loss in losses]  # many are equal
    found = importance(points, losses, SPACE)
    assert sum(found.values()) == pytest.approx(1)
    assert found == pytest.approx(by_optuna(points, losses), rel=1e-7, abs=1e-12)


def test_all_alike_and_a_single_value() -> None:
    points = points_of(np.random.default_rng(1), 24)
    names = len(SPACE)
    assert importance(points, [1.0] * 24, SPACE) == pytest.approx(dict.fromkeys(SPACE, 1 / names))
    best = best_share(np.arange(24.0), 0.25)
    assert best.sum() == 6
    assert divergence([3] * 24, best, Range("int", 3, 3)) == 0.0
    assert divergence(["x"] * 24, best, Range("choice", choices=("x",))) == 0.0
