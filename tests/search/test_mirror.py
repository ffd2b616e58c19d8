"""The copy of settled search trials in an Optuna storage."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time

import optuna
import pytest

from sarx.search.mirror import Mirror, _masked

TEXT = """\
# Which is better?
study: small
base: [data=digit_scenes, training.steps=12, training.eval_every=2]
ablation:
  reference: sar
  arms:
    sar: {}
    plain: {regularizer: none}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
    optim.weight_decay: {low: 0.0, high: 0.1, step: 0.025}
    training.batch_size: {choices: [4, 8, 16]}
  trials_per_arm: 8
  batch: 4
  scheduler: {name: successive_halving, min_fraction: 0.33, reduction_factor: 2}
confirm: {seeds: 2}
"""


def value(segment):
    rank = int(segment.trial_id, 16) % 1009 / 1009
    return lambda epoch: rank + epoch / 1e6


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture
def mirrored(url):
    """Return a function that copies what an engine has, as one start of a driver does."""

    def copy(engine, **options):
        mirror = Mirror(url, engine.study, engine.arms)
        mirror.settle(engine)
        mirror.finish(engine, **options)
        return mirror

    return copy


def trials(url, name):
    return optuna.load_study(study_name=name, storage=url).trials


def copied(database):
    """Return the number of trials in a database, without making one."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as open_database:
            return open_database.execute("SELECT count(*) FROM trials").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_each_arm_has_a_study_with_parameters_values_and_course(begin, host, url, mirrored):
    engine = begin(TEXT)
    host(outcome=value).run(engine)
    mirrored(engine)
    assert sorted(optuna.get_all_study_names(url)) == ["small/plain", "small/sar"]
    study = optuna.load_study(study_name="small/sar", storage=url)
    assert study.direction.name == "MAXIMIZE"
    assert study.user_attrs == {"arm": "sar", "goals": ["val/miou"]}
    seats = {seat.claim.trial_id: seat for seat in engine.searches["sar", 0].seats if seat.same_as is None}
    assert len(study.trials) == len(seats)
    for trial in study.trials:
        seat = seats[trial.user_attrs["trial_id"]]
        record = engine.record(seat.claim)
        assert trial.params["optim.lr"] == seat.claim.config.optim.lr
        assert trial.params["training.batch_size"] == seat.claim.config.training.batch_size
        assert trial.distributions["training.batch_size"].choices == (4, 8, 16)
        if seat.claim.index:  # the default lies between two steps
            assert trial.distributions["optim.weight_decay"].step == 0.025
        assert trial.user_attrs["seed"] == str(seat.claim.seed)
        assert trial.user_attrs["phase"] == "search"
        assert (trial.datetime_complete - trial.datetime_start).total_seconds() == pytest.approx(
            record.seconds, abs=1e-3
        )
        assert trial.intermediate_values == {epoch: goals[0] for epoch, goals in record.goals.items()}
        if seat.stopped is None:
            assert (trial.state.name, trial.value) == ("COMPLETE", record.final[0])
        else:
            assert (trial.state.name, trial.value) == ("PRUNED", record.goals[seat.stopped][0])
    assert study.best_trial.user_attrs["trial_id"] == engine.winners["sar", 0].trial_id


def test_several_goals_repeats_and_directions(begin, host, url, mirrored):
    text = TEXT.replace("  trials_per_arm: 8", "  repeats: 2\n  trials_per_arm: 4").replace(
        "confirm:", "objective: {metric: val/miou, also: [{metric: time/train_s, mode: min}]}\nconfirm:"
    )
    engine = begin(text)
    host(outcome=value).run(engine)
    mirrored(engine)
    assert len(optuna.get_all_study_names(url)) == 4
    study = optuna.load_study(study_name="small/sar#1", storage=url)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert complete
    assert all(len(trial.values) == 2 and trial.values[1] > 0 for trial in complete)
    names = ("small/sar", "small/sar#1")
    seeds = [{trial.user_attrs["seed"] for trial in trials(url, name)} for name in names]
    assert not seeds[0] & seeds[1]


@pytest.mark.parametrize("what", ["failed", "diverged", math.nan, math.inf])
def test_what_has_no_value_is_a_failure_that_says_why(begin, host, text, url, mirrored, what):
    engine = begin(text)
    host(outcome=lambda segment: what).run(engine)
    mirrored(engine)
    found = trials(url, "small/sar")
    assert [trial.state.name for trial in found] == ["FAIL"] * 4
    reason = {"failed": "crashed: it broke", "diverged": "diverged: not finite"}.get(what, "a goal is not")
    assert all(trial.user_attrs["reason"].startswith(reason) for trial in found)


def test_a_default_outside_its_range_is_an_attribute(begin, host, text, url, mirrored):
    engine = begin(text.replace("{low: 0.001, high: 0.1, log: true}", "{low: 0.05, high: 0.1}", 1))
    host().run(engine)
    mirrored(engine)
    default, *others = trials(url, "small/sar")
    assert "optim.lr" not in default.params
    assert default.user_attrs["outside the range: optim.lr"] == engine.arms[0].config.optim.lr
    assert all("optim.lr" in trial.params for trial in others)


def test_resumes_add_only_what_is_new(begin, host, url, mirrored, tmp_path):
    for limit in (3, 7, 7, 10_000):
        engine = begin(TEXT)
        host(outcome=value).run(engine, limit=limit)
        mirrored(engine)
        engine.ledger.close()
        mirrored(engine)
    for name in ("sar", "plain"):
        ids = [trial.user_attrs["trial_id"] for trial in trials(url, f"small/{name}")]
        seats = engine.searches[name, 0].seats
        assert sorted(ids) == sorted(seat.claim.trial_id for seat in seats if seat.same_as is None)


def test_a_trial_that_ran_again_after_its_failure_shows_both(begin, host, text, url, mirrored):
    engine = begin(text)
    host(outcome=lambda segment: "failed").run(engine)
    mirrored(engine)
    for trial_id in [*engine.records]:
        engine.book.write("retried", trial_id=trial_id)
    engine.ledger.close()
    engine = begin(text)
    host().run(engine)
    mirrored(engine)
    states = sorted(trial.state.name for trial in trials(url, "small/sar"))
    assert states == ["COMPLETE"] * 4 + ["FAIL"] * 4


def test_duplicates_are_left_out(begin, host, url, mirrored):
    few = "    training.batch_size: {choices: [4, 8, 16]}\n"
    text = TEXT.split("    optim.lr")[0] + few + "  trials_per_arm: 8\n  batch: 4\nconfirm: {seeds: 2}\n"
    engine = begin(text)
    host().run(engine)
    mirrored(engine)
    seats = engine.searches["sar", 0].seats
    assert any(seat.same_as is not None for seat in seats)
    assert len(trials(url, "small/sar")) == sum(seat.same_as is None for seat in seats)


def test_a_call_looks_only_at_what_has_not_settled(begin, host, text, url, monkeypatch):
    engine = begin(text)
    runner = host()
    mirror = Mirror(url, engine.study, engine.arms)
    runner.run(engine, limit=6)
    mirror.settle(engine)
    looked = []
    monkeypatch.setattr(engine, "record", lambda claim: looked.append(claim) or engine.book.record(claim))
    mirror.settle(engine)
    assert looked == []
    runner.run(engine, limit=7)
    mirror.settle(engine)
    assert len(looked) == 1
    runner.run(engine)
    mirror.finish(engine)
    assert len(trials(url, "small/sar")) == 4


def test_without_a_url_nothing_happens(begin, host, text):
    engine = begin(text)
    mirror = Mirror(None, engine.study, engine.arms)
    mirror.settle(engine)
    mirror.finish(engine)
    assert not mirror.on


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:////nowhere/at/all/optuna.db", "unable to open database file"),
        ("nosuchdatabase://me:secret@host/x", "nosuchdatabase"),
        ("no url", "URL"),
    ],
)
def test_a_storage_that_cannot_be_reached_gives_one_warning_and_the_study_goes_on(
    begin, host, text, capsys, url, says
):
    engine = begin(text)
    mirror = Mirror(url, engine.study, engine.arms)
    runner = host()
    for limit in range(1, 12):
        runner.run(engine, limit=limit)
        mirror.settle(engine)
    runner.run(engine)
    mirror.finish(engine)
    mirror.settle(engine)
    assert engine.done
    printed = capsys.readouterr().out
    assert printed.count("warning: the Optuna storage") == 1
    assert says in printed
    assert "secret" not in printed
    assert "\n" not in printed.rstrip("\n")


def test_a_storage_that_breaks_in_the_middle_gives_one_warning(begin, host, text, tmp_path, url, capsys):
    engine, runner = begin(text), host()
    mirror = Mirror(url, engine.study, engine.arms)
    runner.run(engine, limit=6)
    mirror.settle(engine)
    deadline = time.monotonic() + 60
    while copied(tmp_path / "optuna.db") < 6:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with contextlib.closing(sqlite3.connect(tmp_path / "optuna.db")) as database:
        database.execute("DROP TABLE trial_params")
    runner.run(engine)
    mirror.finish(engine)
    assert capsys.readouterr().out.count("warning") == 1


def test_a_storage_that_hangs_does_not_hold_the_study_up(begin, host, text, url, monkeypatch, capsys):
    engine = begin(text)
    monkeypatch.setattr(Mirror, "_copy", lambda self: time.sleep(5))
    mirror = Mirror(url, engine.study, engine.arms)
    host().run(engine)
    began = time.monotonic()
    mirror.settle(engine)
    mirror.finish(engine, patience_s=0.1)
    assert time.monotonic() - began < 3
    assert "did not take all trials within 0.1 s" in capsys.readouterr().out


def test_a_study_of_other_goals_is_refused(begin, host, text, url, mirrored, capsys):
    optuna.create_study(study_name="small/sar", storage=url, direction="minimize")
    engine = begin(text)
    host().run(engine)
    mirrored(engine)
    assert "a study small/sar with other goals" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pa:ss@word@host/db", "postgresql://me:***@host/db"),
        ("mysql://host/db?user=me&password=x&y=1", "mysql://host/db?user=me&password=***&y=1"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_passwords_are_not_shown(text, shown):
    assert _masked(text) == shown
