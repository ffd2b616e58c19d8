"""Importance of parameters: against PED-ANOVA written out by hand, and only with enough trials."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.importance import FEWEST, importance
from analysis.report import make_report
from analysis.space import Range

Begin = Callable[..., Any]
LETTERS = ("a", "b", "c")


def density(counts: np.ndarray) -> np.ndarray:
    """Return the Parzen estimate of choices: a kernel per choice seen, and one uniform of weight 1."""
    seen = np.flatnonzero(counts)
    kernels = np.full((len(seen), len(counts)), 1 / (len(seen) + 1))
    kernels[np.arange(len(seen)), seen] += 1
    kernels /= kernels.sum(axis=1, keepdims=True)
    mixed = counts[seen] @ kernels + np.full(len(counts), 1 / len(counts))
    return mixed / (counts.sum() + 1)


def divergence(values: list[str], best: list[int]) -> float:
    """Return Pearson's divergence of the values of the best trials from those of all."""
    index = np.array([LETTERS.index(value) for value in values])
    everywhere = density(np.bincount(index, minlength=3))
    top = density(np.bincount(index[best], minlength=3))
    return float((everywhere * (top / everywhere - 1) ** 2).sum())


def test_shares_of_choices_equal_those_by_hand() -> None:
    rng = np.random.default_rng(3)
    points = [{"x": str(rng.choice(LETTERS)), "y": str(rng.choice(LETTERS))} for _ in range(40)]
    losses = [2.0 * (p["x"] != "a") + 0.7 * (p["y"] == "b") + 0.01 * n for n, p in enumerate(points)]
    best = [int(n) for n in np.argsort(losses)[:10]]  # a quarter
    raw = {name: divergence([point[name] for point in points], best) for name in ("x", "y")}
    space = {name: Range("choice", choices=LETTERS) for name in ("x", "y")}
    found = importance(points, losses, space)
    assert found == pytest.approx({name: value / sum(raw.values()) for name, value in raw.items()})
    assert found["x"] > found["y"] > 0


def test_the_parameter_that_decides_is_the_important_one() -> None:
    rng = np.random.default_rng(0)
    space = {"lr": Range("float", 1e-4, 1e-1, log=True), "depth": Range("int", 0, 5, step=1)}
    points = [{"lr": float(10 ** rng.uniform(-4, -1)), "depth": int(rng.integers(0, 6))} for _ in range(60)]
    by_rate = importance(points, [abs(np.log10(point["lr"] / 0.01)) for point in points], space)
    assert by_rate["lr"] > 0.8
    by_depth = importance(points, [point["depth"] + 0.001 * n for n, point in enumerate(points)], space)
    assert by_depth["depth"] > 0.8
    assert sum(by_rate.values()) == pytest.approx(1)


def searched(writer: Any, trials: int) -> Any:
    """Write one search whose best trials have a small learning rate, and return the report."""
    rng = np.random.default_rng(1)
    ranges = {
        "optim.lr": {"kind": "float", "low": 0.001, "high": 0.1, "log": True},
        "optim.weight_decay": {"kind": "float", "low": 0.0, "high": 1.0},
    }
    plan = {"seed": 0, "sampler": "qmc", "space": {}, "base": [], "cpus_per_worker": 1, "ranges": ranges}
    rows = [{"arm": "sar", "level": "", "parameters": list(ranges), "overrides": {}, "warnings": []}]
    payload = {"study": "s", "report": {"primary": "test/miou"}, "reference": "sar", "arms": rows, "seeds": 2}
    payload |= {"objective": {"metric": "val/miou", "mode": "max"}, "trials_per_arm": trials, "plan": plan}
    writer.add("study_opened", payload=payload)
    for index in range(trials):
        rate, decay = 10 ** rng.uniform(-3, -1), rng.uniform(0, 1)
        name = f"s-{index}"
        values = {"optim.lr": rate, "optim.weight_decay": decay} if index else {}
        stored = [{"name": key, "value": json.dumps(value)} for key, value in values.items()]
        writer.add(
            "proposed", arm="sar", level="", phase="search", index=index, trial_id=name, parameters=stored
        )
        end = {"trial_id": name, "attempt": 1, "phase": "search", "epoch": 1, "step": 10, "duration_s": 1.0}
        writer.add("trial_finished", **end, metrics={"val/miou": -abs(np.log10(rate / 0.002))})
    return make_report(writer.study)


def test_too_few_trials_are_said_and_nothing_is_computed(new_ledger: Begin) -> None:
    report = searched(new_ledger(), 8)
    assert not any(table.title.startswith("Importance") for table in report.extras)
    assert (
        "Importance of parameters (PED-ANOVA): not computed, it takes 20 finished search trials of an arm "
        "besides its default; the most here are 7." in report.caption
    )


def test_enough_trials_besides_the_default(new_ledger: Begin) -> None:
    assert not [t for t in searched(new_ledger("few"), FEWEST).extras if t.title.startswith("Importance")]
    report = searched(new_ledger(), FEWEST + 1)
    (table,) = [table for table in report.extras if table.title.startswith("Importance")]
    assert table.rows[0][:2] == ["sar", str(FEWEST)]
    assert table.rows[0][2].startswith("optim.lr ")
