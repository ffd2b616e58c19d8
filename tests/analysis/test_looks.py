"""Looks at the results that were said up front: what is shown at each, what it costs, what is no change."""

from collections.abc import Callable
from typing import Any

import pytest

from analysis.ledger import read_ledger
from analysis.opened import read_study
from analysis.report import Report, make_report

Begin = Callable[..., Any]
ARMS = ("sar", "plain")


@pytest.fixture
def study(new_ledger: Begin, metrics_of: Any) -> Callable[..., Any]:
    """Return a function that runs so many confirm seeds of each arm; the ledger is kept between calls."""
    writer = new_ledger()
    begun: set[str] = set()

    def run(seeds: int, done: tuple[int, int], looks: list[int] | None = None) -> Report:
        plan = {} if looks is None else {"looks": looks}
        writer.open(arms=ARMS, levels=("",), trials_per_arm=0, seeds=seeds, reference="sar", **plan)
        for arm, count in zip(ARMS, done, strict=True):
            for index in range(count):
                name = f"{arm}-{index}"
                if name not in begun:
                    begun.add(name)
                    writer.claim(arm, "", index, name)
                    writer.finish(name, metrics_of(0.5 + 0.01 * (arm == "plain") + 0.003 * (index % 4)))
        return make_report(writer.study)

    return run


def shown(report: Report) -> tuple[int, int]:
    """Return the seeds of the reference that are shown, and the pairs of the tested row."""
    rows = report.comparison.rows
    return sum(rows[0].counts.values()), rows[1].pairs


def said(report: Report) -> list[str]:
    return [line for line in report.caption if line.startswith("Look ")]


def test_before_the_first_look_nothing_is_tested(study: Callable[..., Any]) -> None:
    early = study(10, (4, 4), [5, 10])
    assert early.comparison.family == []
    assert early.comparison.best == frozenset()
    assert early.tables[0].rows[1][3:5] == ["-", "not yet"]
    assert any("Nothing is tested before." in line for line in early.caption)
    assert early.methods.startswith("Interim report")


def test_a_planned_look_is_no_complete_report(study: Callable[..., Any]) -> None:
    report = study(10, (7, 5), [5, 10])
    assert report.missing[0].startswith("Interim: a planned look at 5 of 10 confirm seeds")
    assert report.methods.startswith("Interim report")
    assert study(10, (10, 10), [5, 10]).missing == []


def test_each_look_shows_its_seeds_and_pays_for_all(study: Callable[..., Any]) -> None:
    first = study(10, (7, 5), [5, 10])
    assert shown(first) == (5, 5)
    assert said(first) == [
        "Look 1 of 2 that were planned (after 5, 10 seeds): 5 seeds; 5 more are planned, 2 of their trials "
        "are finished and held back until then."
    ]
    assert not any("earlier plan" in line for line in first.missing)
    assert first.study.looks == 2
    second = study(10, (10, 10), [5, 10])
    assert shown(second) == (10, 10)
    assert said(second) == ["Look 2 of 2 that were planned (after 5, 10 seeds): 10 seeds."]
    assert second.study.looks == 2
    alone = study(10, (10, 10))
    assert (
        second.comparison.tidy["p"].drop_nulls().to_list()
        == alone.comparison.tidy["p"].drop_nulls().to_list()
    )
    assert any("times 2 looks" in line for line in second.caption)


def test_between_looks_nothing_more_is_seen(study: Callable[..., Any]) -> None:
    first = study(10, (5, 5), [5, 10])
    later = study(10, (10, 9), [5, 10])
    assert shown(later) == shown(first) == (5, 5)
    assert later.comparison.tidy.equals(first.comparison.tidy, null_equal=True)


def test_before_the_first_look_its_seeds_are_what_is_planned(study: Callable[..., Any]) -> None:
    early = study(10, (3, 2), [5, 10])
    assert early.study.seeds == 5
    assert early.comparison.rows[1].pairs == 2
    assert any(line.startswith("No look is due yet: 2 were planned") for line in early.caption)


def test_going_on_to_a_planned_look_is_no_change(study: Callable[..., Any], new_ledger: Begin) -> None:
    study(5, (5, 5), [5, 10])
    report = study(10, (10, 10), [5, 10])
    assert report.study.changes == ()
    assert report.study.looks == 2


@pytest.mark.parametrize(("seeds", "looks"), [(12, [5, 10, 12]), (8, None)])
def test_other_changes_count_on_top(study: Callable[..., Any], seeds: int, looks: list[int] | None) -> None:
    study(5, (5, 5), [5, 10])
    report = study(seeds, (seeds, seeds), looks)
    assert report.study.looks == max(2, len(looks or ())) + 1
    assert any("looks" in change for change in report.study.changes)


def test_a_diverged_seed_has_ended_too(new_ledger: Begin, metrics_of: Any) -> None:
    writer = new_ledger()
    writer.open(arms=ARMS, levels=("",), trials_per_arm=0, seeds=4, reference="sar", looks=[2, 4])
    for arm in ARMS:
        for index in range(2):
            writer.claim(arm, "", index, f"{arm}-{index}")
    for name in ("sar-0", "sar-1", "plain-0"):
        writer.finish(name, metrics_of(0.5))
    assert "1 more" not in " ".join(said(make_report(writer.study)))
    writer.add("diverged", trial_id="plain-1", attempt=1, phase="confirm", epoch=1, payload={"reason": "nan"})
    assert read_study(read_ledger(writer.study).events).planned_looks == (2, 4)
    assert make_report(writer.study).study.seeds == 2


def test_looks_that_were_taken_cannot_be_unplanned(study: Callable[..., Any]) -> None:
    study(4, (2, 2), [2, 3, 4])
    study(4, (4, 4), [2, 3, 4])
    for looks in (None, [4]):
        report = study(4, (4, 4), looks)
        assert report.study.looks >= 4, looks


def test_looks_that_change_before_any_result_cost_nothing(study: Callable[..., Any]) -> None:
    study(10, (0, 0), [2, 4, 6, 8, 10])
    report = study(10, (5, 5), [5, 10])
    assert report.study.looks == 2


def test_fewer_seeds_after_a_look_are_a_change(study: Callable[..., Any]) -> None:
    study(10, (10, 10), [5, 10])
    assert study(5, (10, 10), [5, 10]).study.looks == 3


def test_what_the_table_said_before_is_what_its_look_showed(
    study: Callable[..., Any], new_ledger: Begin
) -> None:
    shown = study(10, (9, 9), [5, 10])
    row = shown.comparison.tidy.filter(arm="plain", metric="test/miou").row(0, named=True)
    report = study(9, (9, 9))
    (before,) = [line for line in report.caption if line.startswith("Before start 2")]
    assert f"plain +{row['diff']:.3f}".replace("+0", "+") in before
