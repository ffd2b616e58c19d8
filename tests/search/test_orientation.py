"""Arms of which it is known what they should reach run before the others, in search and confirm."""

import pytest

from sarx.config.errors import UserError

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
