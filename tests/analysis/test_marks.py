"""Marks: what is bold, and what keeps a row, or a metric of it, without a star."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from analysis.comparison import _bad_share
from analysis.report import Report, make_report
from analysis.results import NO_WINNER

Begin = Callable[..., Any]


def cells(report: Report, level: int, arm: str) -> dict[str, str]:
    table = report.tables[level]
    row = next(row for row in table.rows if row[0] == arm)
    return dict(zip(table.columns, row, strict=True))


def simple_study(writer: Any, metrics_of: Any, scores: dict[str, list[float]], **plan: Any) -> Report:
    """Write a study without search: the scores of each arm by seed."""
    seeds = max(map(len, scores.values()))
    options = {"seeds": seeds, "reference": "sar", **plan}
    writer.open(arms=tuple(scores), levels=("",), trials_per_arm=0, **options)
    for arm, values in scores.items():
        for seed, value in enumerate(values):
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            writer.finish(f"{arm}-{seed}", metrics_of(value))
    return make_report(writer.study)


def test_only_a_mean_that_beats_the_second_is_bold(new_ledger: Begin, metrics_of: Any) -> None:
    base = np.array([0.1, 0.11, 0.12, 0.1, 0.13, 0.12])
    noise = 0.001 * np.random.default_rng(0).normal(size=(3, 6))
    for name, lead, bold in (("clear", 0.1, True), ("close", 0.2, False)):
        arms = {"sar": base, "a": base + 0.3 + noise[0], "b": base + 0.1 + lead + noise[1]}
        report = simple_study(new_ledger(name), metrics_of, {arm: list(found) for arm, found in arms.items()})
        table = report.tables[0]
        assert ((1, 1) in table.bold) == bold
        assert {(1, 4), (2, 4)} <= table.bold  # both are better than the reference
        assert any(line.startswith("A bold mean") for line in report.caption) == bold


def test_a_row_that_lost_too_many_seeds_has_no_star_either(new_ledger: Begin, metrics_of: Any) -> None:
    nan = float("nan")
    plan = {"report": {"primary": "test/miou", "secondary": ["test/tail_iou"]}}
    scores = {"sar": [0.1, 0.11, 0.12, 0.1, 0.13, 0.12], "a": [0.51, 0.5, 0.52, 0.5, nan, nan]}
    report = simple_study(new_ledger(), metrics_of, scores, **plan)
    assert report.comparison.tidy.filter(arm="a", metric="test/tail_iou")["p_holm"].item() < 0.05
    assert not cells(report, 0, "a")["test/tail_iou"].endswith(" *")
    assert cells(report, 0, "a")["verdict"] == "no mark (lost seeds)"


def test_a_secondary_metric_that_most_pairs_lack_is_not_tested(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    plan = {"primary": "test/miou", "secondary": ["test/tail_iou"]}
    writer.open(arms=("sar", "a"), levels=("",), trials_per_arm=0, seeds=5, report=plan)
    for arm, lead in (("sar", 0.0), ("a", 0.4)):
        for seed in range(5):
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            found = metrics_of(0.1 + lead + 0.01 * ((seed * (1 + (arm == "a"))) % 5))
            if seed > 1:
                found["test/tail_iou"] = float("nan")
            writer.finish(f"{arm}-{seed}", found)
    tidy = make_report(writer.study).comparison.tidy.filter(arm="a")
    assert tidy.filter(metric="test/miou")["p_holm"].item() < 0.05
    assert tidy.filter(metric="test/tail_iou")["p_holm"].item() is None


def test_seeds_whose_search_gave_no_winner_are_lost_seeds() -> None:
    assert _bad_share(Counter({"finished": 6, NO_WINNER: 2})) == 0.25
    assert _bad_share(Counter({"finished": 6, "waiting": 2})) == 0


def test_a_row_says_whose_seeds_are_missing(new_ledger: Begin, metrics_of: Any) -> None:
    nan = float("nan")
    scores = {
        "sar": [0.1, 0.11, 0.12, nan, nan],
        "a": [0.51, 0.5, 0.52, 0.5, 0.51],
        "b": [0.5, nan, nan, nan, nan],
    }
    report = simple_study(new_ledger(), metrics_of, scores)
    assert cells(report, 0, "a")["verdict"] == "no mark (reference lost seeds)"
    assert cells(report, 0, "b")["verdict"] == "no mark (lost seeds)"


def test_an_arm_that_lost_seeds_is_identical_to_none_that_has_them(
    new_ledger: Begin, metrics_of: Any
) -> None:
    nan = float("nan")
    scores = {"sar": [0.1, 0.11, 0.12, 0.1], "a": [0.51, nan, 0.52, 0.5], "b": [0.51, 0.5, 0.52, 0.5]}
    report = simple_study(new_ledger(), metrics_of, scores)
    assert [row.identical_to for row in report.comparison.rows] == ["", "", ""]
    assert report.comparison.family == [1, 2]


def test_a_significant_difference_inside_the_smallest_effect_says_so(
    new_ledger: Begin, metrics_of: Any
) -> None:
    scores = {"sar": [0.1, 0.2, 0.3, 0.4], "a": [0.1006, 0.2007, 0.3006, 0.4007]}
    plan = {"report": {"primary": "test/miou", "smallest_effect": 0.02}}
    report = simple_study(new_ledger(), metrics_of, scores, **plan)
    assert cells(report, 0, "a")["verdict"] == "better, within the smallest effect"
    scores["a"] = [0.05, 0.35, 0.2, 0.5]
    plan = {"report": {"primary": "test/miou", "smallest_effect": 0.001}}
    report = simple_study(new_ledger("b"), metrics_of, scores, **plan)
    assert cells(report, 0, "a")["verdict"] == "undecided (>1000 seeds)"
