"""What the table said before each look, from the events before that start alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.report import make_report

Begin = Callable[..., Any]
SCORES = {
    "sar": [0.30, 0.31, 0.29, 0.30, 0.32],
    "a": [0.40, 0.42, 0.39, 0.41, 0.42],
    "b": [0.30, 0.32, 0.27, 0.10, 0.05],
}


def finish(writer: Any, metrics_of: Any, seeds: range) -> None:
    for arm, scores in SCORES.items():
        for seed in seeds:
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            writer.finish(f"{arm}-{seed}", metrics_of(scores[seed]))


def said(report: Any) -> list[str]:
    return [line for line in report.caption if line.startswith("Before start")]


def test_more_seeds_after_results_name_what_was_known(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    plan = {"arms": tuple(SCORES), "levels": ("",), "trials_per_arm": 0}
    writer.open(**plan, seeds=3)
    finish(writer, metrics_of, range(3))
    assert said(make_report(writer.study)) == []
    writer.open(**plan, seeds=5)
    finish(writer, metrics_of, range(3, 5))
    report = make_report(writer.study)
    difference = np.mean(SCORES["a"][:3]) - np.mean(SCORES["sar"][:3])
    (line,) = said(report)
    assert line.startswith("Before start 2 the table said: better: a +.103; undecided: b -.00")
    assert difference == pytest.approx(0.1033, abs=1e-3)
    assert line.endswith(" (test/miou).")
    assert report.study.looks == 2


def test_a_look_before_any_pair(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    plan = {"arms": tuple(SCORES), "levels": ("",), "trials_per_arm": 0}
    writer.open(**plan, seeds=3)
    finish(writer, metrics_of, range(1))
    writer.open(**plan, seeds=5)
    assert said(make_report(writer.study)) == [
        "Before start 2 the table said: nothing yet, no row had two pairs."
    ]


def test_untuned_on_the_reported_split_is_not_called_tuned(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(selection="report", trials_per_arm=0)
    assert make_report(writer.study).caption[0].startswith("Reported is test/miou")
