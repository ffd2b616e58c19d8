"""Arms of which it is known what they should reach run before the others, in search and confirm."""

import pytest

from analysis.orientation import TOLERANCE as analysis_tolerance
from sarx.config.errors import UserError
from sarx.search.shortfall import TOLERANCE, shortfalls

FACTORS = "report: {orientation: {plain: 0.9}}\n"
KNOWN = "report: {orientation: {plain: 0.8}}\n"


def test_an_arm_with_an_orientation_is_done_before_another_begins(begin, host, text):
    engine, runner = begin(text + KNOWN), host()
    runner.run(engine)
    arms = [engine.claim_of(segment).arm.name for segment in runner.started]
    own = [arm == "plain" for arm in arms]
    assert sum(own) == 4 + 2
    assert own == sorted(own, reverse=True)
    others = [arm for arm in arms if arm != "plain"]
    assert len(set(others[:2])) == 2  # the rest interleaves as ever


def test_the_order_changes_no_proposal(begin, host, text):
    found = []
    for extra, folder in (("", "a"), (KNOWN, "b")):
        engine, runner = begin(text + extra, folder), host()
        runner.run(engine)
        found.append(sorted(claim.trial_id for claim in engine.queue()))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("report: {orientation: {nobody: 0.8}}\n", r"orientation\.nobody: there is no such arm"),
        ("report: {orientation: {plain: high}}\n", r"orientation\.plain: 'high' is not a float"),
        ("report: {orientation: [plain]}\n", r"orientation: expected arms with values"),
        (FACTORS, r"report\.orientation: one value for all levels"),
    ],
)
def test_an_orientation_that_means_nothing_is_refused(begin, text, extra, message):
    if extra is FACTORS:
        text = text.replace("  reference: sar\n", "  reference: sar\n  factors: {data.imbalance: [5, 20]}\n")
    with pytest.raises(UserError, match=message):
        begin(text + extra)


WANTED = "report: {{primary: test/miou, orientation: {{plain: {wanted}}}}}\n"


def reached(begin, host, text, wanted, outcome):
    """Return the warnings after a study whose confirm trials all reach what ``outcome`` says."""
    engine = begin(text + WANTED.format(wanted=wanted))
    host(outcome=outcome).run(engine)
    return shortfalls(engine)


@pytest.mark.parametrize(("value", "warned"), [(0.7, True), (0.785, True), (0.795, False), (0.9, False)])
def test_an_arm_that_stays_a_point_short_is_named(begin, host, text, value, warned):
    found = reached(begin, host, text, 0.8, lambda _: value)
    assert list(found) == (["plain"] if warned else [])
    if warned:
        assert f"plain reaches test/miou {value:.4f}" in found["plain"]
        assert "0.8000" in found["plain"]


def test_nothing_is_said_before_all_seeds_are_done(begin, host, text):
    engine = begin(text + WANTED.format(wanted=0.8))
    assert shortfalls(engine) == {}
    host(outcome=lambda _: 0.1).run(engine, limit=4 + 1)
    assert shortfalls(engine) == {}
    host(outcome=lambda _: 0.1).run(engine, limit=1)
    assert list(shortfalls(engine)) == ["plain"]


def test_lower_is_better_where_the_objective_is_minimised(begin, host, text):
    text += "objective: {metric: val/miou, mode: min}\n"
    assert reached(begin, host, text, 0.2, lambda _: 0.15) == {}


def test_seeds_that_diverged_are_left_out_and_none_says_nothing(begin, host, text):
    assert reached(begin, host, text, 0.8, lambda segment: "diverged") == {}


def test_a_search_without_winner_does_not_hold_it_back(begin, host, text):
    text = text.replace("  batch: 4\n", "  batch: 4\n  repeats: 2\n")
    engine = begin(text + WANTED.format(wanted=0.8))
    lost = {seat.claim.trial_id for (key, repeat), s in engine.searches.items() if repeat for seat in s.seats}
    host(outcome=lambda segment: "diverged" if segment.trial_id in lost else 0.1).run(engine)
    assert engine.winners["plain", 1] is None
    assert list(shortfalls(engine)) == ["plain"]


def test_the_report_says_the_same():
    assert analysis_tolerance == TOLERANCE
