"""Finalists, repeats, shared scope, proxies, grids, duplicates, forgetting, and running a part only."""

import pytest

from sarx.cluster.driver import restriction
from sarx.search.state import FINISHED
from sarx.study.ledger import of_kind
from sarx.study.seeds import derive


def claims(engine, kind):
    return [
        (e["arm"], e.get("repeat") or 0, e["index"], e["trial_id"])
        for e in of_kind(engine.ledger.events, kind)
    ]


@pytest.fixture
def finalists(text):
    return text.replace("  batch: 4", "  batch: 4\n  finalists: {top: 3, seeds: 2}")


def test_finalists_run_again_on_seeds_of_their_own_and_their_mean_decides(begin, host, finalists):
    engine = begin(finalists)

    def outcome(segment):
        if segment.phase == "search":
            return [0.1, 0.9, 0.8, 0.7][segment.index]
        return [0.2, 0.2, 0.1, 0.5, 0.3, 0.3][segment.index]  # places 1, 2, 3, two seeds each

    runner = host(slots=3, outcome=outcome)
    runner.run(engine)
    assert engine.done
    assert engine.incomplete == []
    assert engine.winners["sar", 0].index in (2, 3)
    assert (
        engine.winners["sar", 0].index == 2
    )  # .1 and .5, as .3 and .3: the tie goes to the better of the search
    assert sum(s.phase == "finalist" for s in runner.started) == 3 * 3 * 2
    seeds = {
        phase: {c.seed for c in engine.queue() if c.phase == phase}
        for phase in ("search", "finalist", "confirm")
    }
    assert {len(found) for found in seeds.values()} == {2, 4}
    assert len(set.union(*seeds.values())) == 2 + 4 + 2
    for arm in engine.arms:
        mine = [c for c in engine.queue() if c.phase == "finalist" and c.arm is arm]
        assert [c.proposal for c in sorted(mine, key=lambda c: c.index)] == [1, 1, 2, 2, 3, 3]
        assert {c.config.role for c in mine} == {"search"}


def test_a_finalist_that_fails_or_diverges_cannot_win(begin, host, finalists):
    engine = begin(finalists)

    def outcome(segment):
        if segment.phase == "search":
            return [0.1, 0.9, 0.8, 0.7][segment.index]
        return (
            ["diverged", 0.9, "failed", 0.9, 0.1, 0.1][segment.index] if segment.phase == "finalist" else 0.5
        )

    host(outcome=outcome).run(engine)
    assert {claim.index for claim in engine.winners.values()} == {3}


def test_repeats_are_independent_searches_and_share_out_the_confirm_seeds(begin, host, text):
    text = text.replace("  batch: 4", "  batch: 4\n  repeats: 2").replace("seeds: 2", "seeds: 5")
    engine, runner = begin(text), host(slots=4)
    runner.run(engine)
    assert engine.done
    assert engine.incomplete == []
    first, second = (engine.searches["sar", r].seats for r in (0, 1))
    assert first[0].claim.parameters == second[0].claim.parameters == {}
    assert all(a.claim.parameters != b.claim.parameters for a, b in zip(first[1:], second[1:], strict=True))
    assert not {s.claim.seed for s in first} & {s.claim.seed for s in second}
    plain = engine.searches["plain", 1].seats
    assert [s.claim.seed for s in plain] == [s.claim.seed for s in second]
    assert plain[1].claim.parameters["optim.lr"] == second[1].claim.parameters["optim.lr"]
    assert [seat.claim.index for seat in engine.confirm["sar"]] == [0, 1, 2, 3, 4]
    for seat in engine.confirm["sar"]:
        assert seat.claim.parameters == engine.winners["sar", seat.claim.index % 2].parameters
        assert seat.claim.seed == derive(0, "confirm", seat.claim.index)
    engine.ledger.close()
    again, other = begin(text), host()
    other.run(again)
    assert again.done
    assert other.ran == []
    assert claims(again, "selected") == claims(engine, "selected")


def test_overrides_are_for_search_alone(begin, host, text):
    text = text.replace("training.steps=4", "training.steps=8").replace(
        "  batch: 4", "  batch: 4\n  overrides: {training.steps: 4}\n  finalists: {top: 2, seeds: 1}"
    )
    engine, runner = begin(text), host()
    runner.run(engine)
    steps = {(s.phase, s.config["training"]["steps"], s.until) for s in runner.started}
    assert steps == {("search", 4, 2), ("finalist", 8, 4), ("confirm", 8, 4)}


def test_shared_scope_tunes_one_arm_and_gives_its_values_to_all(begin, host, text):
    text = text.replace("search:\n", "search:\n  scope: shared\n  tune_on: sar\n")
    engine, runner = begin(text), host()
    runner.run(engine)
    assert engine.done
    assert engine.incomplete == []
    assert sum(s.phase == "search" for s in runner.started) == 4
    best = engine.winners["sar", 0].parameters
    for arm in engine.arms:
        for seat in engine.confirm[arm.key]:
            assert seat.claim.parameters.get("optim.lr") == best.get("optim.lr")
            assert ("regularizer.pull_weight" in seat.claim.parameters) <= (arm.name == "sar")


def test_a_winning_default_of_the_shared_scope_goes_to_arms_with_other_defaults(begin, host, text):
    text = text.replace("search:\n", "search:\n  scope: shared\n  tune_on: sar\n")
    text = text.replace("    plain: {regularizer: none}", "    centres: {regularizer: center_loss}")
    engine = begin(text)
    host(outcome=lambda s: 1.0 if s.label == "sar search 0" else 0.1).run(engine)
    default = engine.searches["sar", 0].seats[0].claim
    assert engine.winners["sar", 0] == default
    tuned = default.config.regularizer.pull_weight
    assert arm_named(engine, "centres").config.regularizer.pull_weight != tuned
    for seat in engine.confirm["centres"]:
        assert seat.claim.config.regularizer.pull_weight == tuned
        assert seat.claim.config.optim.lr == default.config.optim.lr
    (selected,) = of_kind(engine.ledger.events, "selected")
    assert {item["name"] for item in selected["parameters"]} >= {"optim.lr", "regularizer.pull_weight"}


def arm_named(engine, name):
    return next(arm for arm in engine.arms if arm.name == name)


def test_a_grid_runs_every_cell_once_under_any_concurrency(begin, host, text):
    start, end = text.index("  parameters:"), text.index("  trials_per_arm")
    text = (
        text[:start]
        + (
            "  sampler: grid\n  parameters:\n    optim.lr: {choices: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]}\n"
            "    optim.weight_decay: {low: 0.0, high: 0.4, step: 0.1}\n"
        )
        + text[end:].replace("  trials_per_arm: 4\n", "")
    )
    text = text.replace("    plain: {regularizer: none}\n    no_pull: {regularizer.pull_weight: 0.0}\n", "")
    engine, runner = begin(text), host(slots=4)
    runner.run(engine)
    assert engine.done
    ran = [s for s in runner.started if s.phase == "search"]
    assert len(ran) == len({(s.config["optim"]["lr"], s.config["optim"]["weight_decay"]) for s in ran}) == 30


def test_a_point_that_the_arm_has_had_is_told_and_costs_nothing(begin, host, text):
    start, end = text.index("  parameters:"), text.index("  trials_per_arm")
    text = (
        text[:start]
        + "  parameters:\n    optim.lr: {choices: [0.001, 0.01]}\n"
        + text[end:].replace("trials_per_arm: 4", "trials_per_arm: 8")
    )
    engine, runner = begin(text), host(slots=3)
    runner.run(engine)
    assert engine.done
    assert engine.incomplete == []
    for arm in engine.arms:
        seats = engine.searches[arm.key, 0].seats
        assert len(seats) == 8
        own = [seat for seat in seats if seat.same_as is None]
        assert 2 <= len(own) <= 3
        for seat in seats:
            if seat.same_as is not None:
                assert seats[seat.same_as].claim.config.optim.lr == seat.claim.config.optim.lr
    ran = [s for s in runner.started if s.phase == "search"]
    assert len(ran) == sum(s.same_as is None for search in engine.searches.values() for s in search.seats)
    engine.ledger.close()
    again, other = begin(text), host()
    other.run(again)
    assert other.ran == []


def test_a_forgotten_trial_runs_again_from_its_start_and_a_retried_one_once_more(begin, host, text):
    engine, runner = (
        begin(text),
        host(outcome=lambda s: "failed" if s.label == "sar confirm 1" else "finished"),
    )
    runner.run(engine)
    done = engine.searches["plain", 0].seats[2].claim.trial_id
    broken = engine.confirm["sar"][1].claim.trial_id
    engine.ledger.append("forgotten", trial_id=done, payload="{}")
    engine.ledger.append("retried", trial_id=broken, payload="{}")
    engine.ledger.close()
    again, other = begin(text), host()
    other.run(again)
    assert again.done
    assert again.incomplete == []
    assert sorted(other.ran) == sorted([done, broken])
    first = next(s for s in other.started if s.trial_id == done)
    assert (first.start, first.attempt, first.since) == (0, 2, 2)
    assert again.records[done].status == FINISHED


def test_a_lost_node_does_not_count_as_a_failure(begin, host, text):
    engine = begin(text + "max_failures: 0\n")
    runner = host(outcome=lambda s: "preempted" if s.attempt < 4 else "finished")
    runner.run(engine)
    assert engine.done
    assert engine.incomplete == []
    assert {r.failures_by_kind["preempted"] for r in engine.records.values()} == {3}


def test_a_part_of_the_study_runs_alone(begin, host, text):
    engine, runner = begin(text, only_phase="search"), host()
    runner.run(engine)
    assert engine.done
    assert {s.phase for s in runner.started} == {"search"}
    assert engine.incomplete == engine.held_back == ["sar", "plain", "no_pull"]
    engine.ledger.close()
    engine, runner = begin(text, only_arms=frozenset({"plain"}), only_phase="confirm"), host()
    runner.run(engine)
    assert engine.done
    assert [s.label for s in runner.started] == ["plain confirm 0", "plain confirm 1"]
    assert engine.incomplete == engine.held_back == ["sar", "no_pull"]
    engine.ledger.close()
    engine, runner = begin(text), host()
    runner.run(engine)
    assert engine.incomplete == engine.held_back == []
    assert len(runner.ran) == 4


def test_what_failed_is_not_held_back_and_confirm_waits_for_its_search(begin, host, text):
    engine = begin(text + "max_failures: 0\n", only_phase="search")
    host(outcome=lambda s: "failed" if s.label.startswith("plain") else "finished").run(engine)
    assert engine.incomplete == ["sar", "plain", "no_pull"]
    assert engine.held_back == ["sar", "no_pull"]  # no trial of plain is left to run
    engine.ledger.close()
    engine, runner = begin(text, "other", only_phase="confirm"), host()
    runner.run(engine)
    assert (engine.done, runner.ran) == (True, [])
    assert engine.held_back == ["sar", "plain", "no_pull"]
    assert restriction(engine) == "--phase confirm (confirm trials wait for their search to end)"


def test_goals_beside_the_objective_are_recorded_and_training_time_is_one(begin, host, text):
    text += "objective: {metric: val/miou, also: [{metric: time/train_s, mode: min}]}\n"
    engine = begin(text)
    host().run(engine)
    assert {r.final[1] for r in engine.records.values()} == {0.2}
    assert {len(r.final) for r in engine.records.values()} == {2}


def test_a_grown_grid_still_has_every_cell_once(begin, host, text):
    start, end = text.index("  parameters:"), text.index("  trials_per_arm")
    grid = "  sampler: grid\n  parameters:\n    optim.lr: {choices: [0.01, 0.02]}\n"
    grid += "    optim.weight_decay: {choices: [0.0, 0.1]}\n"
    text = text[:start] + grid + text[end:].replace("  trials_per_arm: 4\n", "")
    engine = begin(text)
    host().run(engine)
    engine.ledger.close()
    grown = begin(text.replace("[0.0, 0.1]", "[0.0, 0.1, 0.2]"))
    host().run(grown)
    assert grown.done
    for search in grown.searches.values():
        cells = [tuple(seat.claim.parameters.values()) for seat in search.seats]
        assert len(cells) == len(set(cells)) == 6
        assert all(seat.same_as is None for seat in search.seats)


def test_an_infinite_objective_never_wins(begin, host):
    engine = begin()
    host(outcome=lambda s: float("inf") if s.index == 2 and s.phase == "search" else 0.1).run(engine)
    assert 2 not in {claim.index for claim in engine.winners.values()}


def test_another_kind_of_sampler_does_not_take_up_its_proposals(begin, host, text):
    text = text.replace("trials_per_arm: 4", "trials_per_arm: 12\n  sampler: {name: tpe, startup: 4}")
    engine = begin(text)
    host().run(engine)
    engine.ledger.close()
    common = begin(text.replace("{name: tpe, startup: 4}", "qmc"))
    host().run(common)
    for index in range(12):
        points = [search.seats[index].claim.parameters for search in common.searches.values()]
        assert len({point.get("optim.lr") for point in points}) == 1


def test_a_winner_with_another_score_is_selected_again(begin, host, text):
    engine = begin(text)
    host(outcome=lambda s: 0.9 if s.index == 1 else 0.1).run(engine)
    engine.ledger.append("forgotten", trial_id=engine.winners["sar", 0].trial_id, payload="{}")
    engine.ledger.close()
    again = begin(text)
    host(outcome=lambda s: 0.8 if s.index == 1 else 0.1).run(again)
    last = [e for e in of_kind(again.ledger.events, "selected") if e["arm"] == "sar"][-1]
    assert last["metrics"] == [{"name": "val/miou", "value": 0.8}]
