"""The front of several goals against its definition, and the table of trade-offs of hand-written events."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.ledger import read_ledger
from analysis.opened import read_study
from analysis.pareto import pareto_front, trade_offs
from analysis.report import make_report
from analysis.search_tables import parameters_text

Begin = Callable[..., Any]
VALUES = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, float("nan"), float("inf"), float("-inf")])
OBJECTIVE = {
    "metric": "val/miou",
    "mode": "max",
    "also": [{"metric": "time/train_s", "mode": "min"}, {"metric": "val/loss", "mode": "min"}],
}


def beats(one: list[float], other: list[float], modes: list[str]) -> bool:
    """Return whether a trial is as good as another in every goal and better in one, by definition."""
    pairs = [(a, b) if mode == "max" else (-a, -b) for a, b, mode in zip(one, other, modes, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@settings(deadline=None, max_examples=300)
@given(st.data(), st.integers(1, 3), st.integers(0, 12))
def test_the_front_is_what_nobody_beats(data: Any, goals: int, count: int) -> None:
    modes = data.draw(st.lists(st.sampled_from(["max", "min"]), min_size=goals, max_size=goals))
    row = st.lists(VALUES, min_size=goals, max_size=goals)
    rows = data.draw(st.lists(row, min_size=count, max_size=count))
    known = [values for values in rows if np.isfinite(values).all()]
    expected = [
        bool(np.isfinite(values).all()) and not any(beats(other, values, modes) for other in known)
        for values in rows
    ]
    found = pareto_front(np.array(rows, dtype=np.float64).reshape(count, goals), modes)
    assert found.tolist() == expected


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_the_front_depends_on_no_order_and_no_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(40, 2))
    order = rng.permutation(40)
    front = pareto_front(values, ["max", "min"])
    assert (pareto_front(values[order], ["max", "min"]) == front[order]).all()
    assert (pareto_front(np.exp(values), ["max", "min"]) == front).all()
    assert (pareto_front(-values, ["min", "max"]) == front).all()


def trial(
    writer: Any, arm: str, level: str, index: int, values: tuple[float, float, float], **payload: Any
) -> None:
    """Write a search trial of one epoch: its score, its duration, its loss."""
    name, (score, seconds, loss) = f"{level}-{arm}-{index}", values
    where = {"arm": arm, "level": level or None, "phase": "search", "index": index, "seed": index}
    parameters = [{"name": "optim.lr", "value": f"0.0{index + 1}"}]
    writer.add("proposed", **where, trial_id=name, parameters=parameters, payload={"code": "c0de", **payload})
    end = {"trial_id": name, "attempt": 1, "phase": "search", "epoch": 1, "step": 2, "duration_s": seconds}
    writer.add("trial_finished", **end, metrics={"val/miou": score, "val/loss": loss})


def found(writer: Any) -> list[tuple[Any, ...]]:
    events = read_ledger(writer.study).events
    frame = trade_offs(events, read_study(events))
    return frame.select("level", "arm", "val/miou", "time/train_s", "val/loss").rows()


def test_every_level_has_its_own_front_over_all_arms(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(arms=("sar", "a"), levels=("m=1", "m=2"), objective=OBJECTIVE, trials_per_arm=4)
    nan = float("nan")
    trial(writer, "a", "m=1", 0, (0.5, 10.0, 1.0))
    trial(writer, "a", "m=1", 1, (0.9, 99.0, nan))  # without a goal
    trial(writer, "sar", "m=1", 0, (0.4, 10.0, 1.0))  # beaten by arm a
    trial(writer, "sar", "m=1", 1, (0.4, 9.0, 1.0))
    trial(writer, "sar", "m=1", 2, (0.6, 20.0, 2.0))
    trial(writer, "sar", "m=2", 0, (0.1, 99.0, 9.0))
    trial(writer, "sar", "m=2", 1, (0.1, 99.0, 9.0))  # equal: both stay
    trial(writer, "sar", "m=2", 2, (0.9, 1.0, 0.1), same_as=0)  # a duplicate never ran
    trial(writer, "sar", "m=2", 7, (0.9, 1.0, 0.1))  # of an earlier plan
    trial(writer, "gone", "m=2", 0, (0.9, 1.0, 0.1))  # of an arm that is no more
    assert found(writer) == [
        ("m=1", "sar", 0.6, 20.0, 2.0),
        ("m=1", "sar", 0.4, 9.0, 1.0),
        ("m=1", "a", 0.5, 10.0, 1.0),
        ("m=2", "sar", 0.1, 99.0, 9.0),
        ("m=2", "sar", 0.1, 99.0, 9.0),
    ]
    table = make_report(writer.study).extras[-1]
    assert table.columns[1:4] == ["val/miou (max)", "time/train_s (min)", "val/loss (min)"]
    assert table.rows[0] == ["sar (m=1)", ".6", "20", "2", "m=1-sar-2", "optim.lr .03"]


def test_training_time_counts_each_epoch_once_and_the_last_attempt(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(arms=("sar",), levels=("",), objective=OBJECTIVE, trials_per_arm=4)
    trial(writer, "sar", "", 0, (0.5, 8.0, 1.0))
    row = {"trial_id": "-sar-0", "phase": "search", "metrics": {"val/miou": 0.5, "val/loss": 1.0}}
    writer.add("forgotten", trial_id="-sar-0")
    for attempt, epoch, seconds in ((2, 1, 1.0), (2, 2, 100.0), (3, 2, 10.0)):
        writer.add("epoch", **row, attempt=attempt, epoch=epoch, duration_s=seconds)
    writer.add("rung", **row, attempt=3, epoch=3, duration_s=1000.0)
    assert found(writer) == []
    writer.add("trial_finished", **row, attempt=4, epoch=4, duration_s=10000.0)
    assert found(writer) == [("", "sar", 0.5, 11011.0, 1.0)]


def test_a_study_of_several_goals_without_any_trial(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(objective=OBJECTIVE)
    assert found(writer) == []
    assert make_report(writer.study).extras[-1].rows == []


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (None, "-"),
        ("{}", "defaults"),
        ('{"optim.lr": 0.0123456, "data.crop": 64}', "optim.lr .01235, data.crop 64"),
        ('{"a.b": true, "c.d": "adamw", "e.f": null, "g.h": 0.0}', "a.b true, c.d adamw, e.f null, g.h 0"),
        ('{"a.b": 1e-12, "c.d": 120000.0}', "a.b 1e-12, c.d 120000"),
    ],
)
def test_parameters_as_text(stored: str | None, text: str) -> None:
    assert parameters_text(stored) == text
