"""Tables of the search from ledgers that the engine wrote: course, winners and their spread, edges, cost."""

import json
from dataclasses import replace
from typing import Any

import pytest

from analysis.numbers import number, significant
from analysis.results import winner_table
from analysis.scored import edge_statement, edge_table, edges
from analysis.space import Range

SCORES = [0.1, 0.5, 0.3, 0.4]
"""Of the proposals of each arm: 1 wins, and 1, 3 and 2 are the best three."""


def by_index(segment: Any) -> float:
    """Return a score that depends on the number of the proposal alone."""
    return SCORES[segment.index] if segment.phase == "search" else 0.5


def proposed(found: Any, arm: str, repeat: int = 0) -> list[dict[str, Any]]:
    """Return the points of an arm as the ledger has them."""
    events = found.events.filter(event="proposed", arm=arm)
    rows = [row for row in events.iter_rows(named=True) if (row["repeat"] or 0) == repeat]
    return [
        {item["name"]: json.loads(item["value"]) for item in row["parameters"]}
        for row in sorted(rows, key=lambda row: row["index"])
    ]


def test_the_best_score_so_far(start: Any, shown: Any) -> None:
    found = shown(start().run(by_index))
    for row in found.extra("Course of the search"):
        assert (row["after 1"], row["after 2"], row["after 4"]) == (".1000", ".5000", ".5000")
    assert [row["arm"] for row in found.extra("Course of the search")] == ["sar", "plain", "no_pull"]


def test_the_course_of_a_goal_to_minimise_and_of_lost_trials(start: Any, shown: Any, text: str) -> None:
    def outcome(segment: Any) -> Any:
        lost = segment.phase == "search" and segment.index == 0
        return "diverged" if lost else by_index(segment)

    text = text.replace("ablation:", "objective: {metric: val/loss, mode: min}\nablation:")
    found = shown(start(text.replace("val/loss", "val/miou")).run(outcome))
    row = found.extra("Course of the search")[0]
    assert (row["after 1"], row["after 2"], row["after 4"]) == ("-", ".5000", ".3000")


def test_the_course_shows_nothing_beyond_what_is_decided(start: Any, shown: Any) -> None:
    found = shown(start().run(by_index, limit=7))
    rows = {row["arm"]: [row[f"after {count}"] for count in (1, 2, 4)] for row in found.extra("Course")}
    decided = found.events.filter(event="trial_finished")["trial_id"].to_list()
    for arm, cells in rows.items():
        events = found.events.filter(event="proposed", arm=arm).sort("index")
        known = [trial in decided for trial in events["trial_id"].to_list()]
        expected = [
            number(max(SCORES[:n]), 4) if all(known[:n]) and len(known) >= n else "-" for n in (1, 2, 4)
        ]
        assert cells == expected
    assert any("-" in cells for cells in rows.values())
    assert any(cells[0] != "-" for cells in rows.values())


def test_several_searches_are_averaged(start: Any, shown: Any, text: str) -> None:
    def outcome(segment: Any) -> float:
        return int(segment.trial_id, 16) % 997 / 997

    found = shown(start(text.replace("  batch: 4", "  batch: 4\n  repeats: 2")).run(outcome))
    trials = found.events.filter(event="proposed", arm="plain").select("repeat", "index", "trial_id").rows()
    scores = {(repeat or 0, index): int(trial, 16) % 997 / 997 for repeat, index, trial in trials}
    row = found.extra("Course of the search")[1]
    for count in (1, 2, 4):
        best = [max(scores[repeat, index] for index in range(count)) for repeat in (0, 1)]
        assert row[f"after {count}"] == number(sum(best) / 2, 4)
    assert len(found.extra("Winners")) == 6


def test_winners_say_which_proposal_and_how_far_the_best_three_spread(start: Any, shown: Any) -> None:
    found = shown(start().run(by_index))
    for row in found.extra("Winners"):
        points = proposed(found, row["arm"])
        assert row["proposal"] == "1"
        expected = []
        for name in points[1]:
            values = [points[n][name] for n in (1, 3, 2)]
            expected.append(f"{name} {significant(min(values))} .. {significant(max(values))}")
        assert row["range over the best 3 trials"] == ", ".join(expected)
    (table,) = [table for table in found.report.extras if table.title.startswith("Winners")]
    assert table.notes == ()
    assert found.report.frames["winners.csv"].height == 3


def test_a_default_that_won_is_flagged(start: Any, shown: Any) -> None:
    found = shown(start().run(lambda segment: 0.9 if segment.index == 0 else 0.1))
    assert {row["proposal"] for row in found.extra("Winners")} == {"0, the default"}
    (table,) = [table for table in found.report.extras if table.title.startswith("Winners")]
    assert table.notes == ("The default won in 3 of 3 searches: tuning changed nothing there.",)


def test_a_grid_has_no_default(start: Any, shown: Any, text: str) -> None:
    grid = text[: text.index("search:")] + (
        "search:\n  parameters:\n    optim.lr: {choices: [0.01, 0.1]}\n  sampler: grid\n"
        "  batch: 2\nconfirm: {seeds: 2}\n"
    )
    found = shown(start(grid).run(lambda segment: 0.9 if segment.index == 0 else 0.1))
    assert {row["proposal"] for row in found.extra("Winners")} == {"0"}


def test_winning_values_at_an_edge_are_named_with_the_cure(start: Any, shown: Any) -> None:
    found = shown(start().run(by_index))
    bounds = {
        "optim.lr": (0.001, 0.1),
        "optim.weight_decay": (0.0, 0.1),
        "regularizer.pull_weight": (0.01, 1.0),
    }
    expected, total = [], 0
    for arm in ("sar", "plain", "no_pull"):
        for name, value in proposed(found, arm)[1].items():
            low, high = bounds[name]
            total += 1
            if name == "optim.weight_decay":
                near = ((value - low) <= 0.05 * (high - low), (high - value) <= 0.05 * (high - low))
            else:
                step = (high / low) ** 0.05
                near = (value <= low * step, value >= high / step)
            expected += [(arm, name, significant(value))] if any(near) else []
    shown_edges = [row for table in found.report.extras if "edge" in table.title for row in table.rows]
    assert [tuple(row[:3]) for row in shown_edges] == expected
    said = found.said("Within 5 %" if expected else "No winning value lies within 5 %")
    assert f"of {total}" in said


def test_a_range_that_ends_beside_the_winner(start: Any, shown: Any) -> None:
    found = shown(start().run(by_index))
    chosen = winner_table(found.events, found.study)
    rate = proposed(found, "plain")[1]["optim.lr"]
    narrow = replace(found.study, space={"optim.lr": Range("float", rate / 1.01, 0.1, log=True)})
    table = edge_table(narrow, [edge for edge in edges(narrow, chosen) if edge.arm == "plain"])
    assert table is not None
    assert table.rows == [
        [
            "plain",
            "optim.lr",
            significant(rate),
            f"{significant(rate / 1.01)} .. .1 (log)",
            "widen the range: lower low",
        ]
    ]
    (said,) = edge_statement(narrow, chosen)
    assert said.startswith("Within 5 % of an edge of their range lie 3 of 3 winning values")
    assert said.endswith("optim.lr. The optimum may lie outside: widen the range.")
    high = replace(found.study, space={"optim.lr": Range("float", 1e-4, rate * 1.01, log=True)})
    assert {edge.end for edge in edges(high, chosen)} == {"high"}


def test_costs_before_and_in_confirm_add_up(start: Any, shown: Any) -> None:
    found = shown(start().run())
    for row in found.extra("Cost of each arm"):
        assert (row["search trials"], row["search steps"]) == ("4", "48")
        assert (row["confirm trials"], row["confirm steps"]) == ("4", "48")
        assert row["search hours"] == row["confirm hours"] == number(4 * 6 * 36 / 3600, 2)
        assert float(row["CPU-hours"]) == pytest.approx(found.paid(row["arm"]), abs=0.005)


def test_hours_count_the_workers_that_trained(start: Any, shown: Any, text: str) -> None:
    driver = start(text + "resources: {num_workers: 4, min_workers: 1, cpus_per_worker: 2}\n")
    while (segment := driver.engine.next_segment()) is not None:
        fewer = {"workers": 1} if segment.phase == "confirm" else {}
        driver.end(segment, 0.5, **fewer)
    found = shown(driver)
    for row in found.extra("Cost of each arm"):
        hours = 4 * 6 * 36 / 3600
        assert float(row["CPU-hours"]) == pytest.approx(hours * 4 * 2 + hours * 1 * 2, abs=0.005)
    (table,) = [table for table in found.report.extras if table.title == "Cost of each arm"]
    assert "CPU-hours: all hours times the CPU cores in use (8 a trial as planned)" in table.notes[0]
