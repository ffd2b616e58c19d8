"""The searcher driven as Tune drives it, on a real engine and ledger; no Ray, no training."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.tune.search import Searcher

from sarx.cluster import failures, limits
from sarx.cluster.limits import Guard
from sarx.cluster.monitor import Monitor
from sarx.cluster.searcher import SegmentSearcher, Watch
from sarx.cluster.slots import Slots
from sarx.config.errors import UserError
from sarx.search.engine import Engine
from sarx.study.design import make_arms
from sarx.study.identity import trial_id
from sarx.study.ledger import Ledger, read_events
from sarx.study.load import load_study
from sarx.study.storage import open_folder

CHECKOUT = Path(__file__).resolve().parents[2]
STUDY = """\
# Which is better?
study: small
base: [data=digit_scenes, training.steps=8, training.eval_every=2]
ablation:
  reference: sar
  arms:
    sar: {}
    plain: {regularizer: none}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
  trials_per_arm: 2
  batch: 2
  scheduler: {name: successive_halving, min_fraction: 0.5, reduction_factor: 2}
confirm: {seeds: 1}
limits: {trial_minutes: 3, max_trials: MAX}
"""


def refuse(error):
    raise error


class Bench:
    """A study in a folder, its searcher, and Tune's side of it."""

    def __init__(self, root, max_trials=0):
        file = root / "small.yaml"
        file.write_text(STUDY.replace("MAX", str(max_trials)))
        study, source = load_study(file)
        self.folder = open_folder(root, study.study)
        self.ledger = Ledger(self.folder.ledger)
        self.engine = Engine(
            study,
            make_arms(study, source),
            self.ledger,
            lambda config: trial_id(config, data_fingerprint="d", code="c"),
        )
        self.guard = Guard(study.limits, self.engine, time.monotonic())
        self.boards = []
        self.open()

    def open(self):
        self.told = []
        self.searcher = SegmentSearcher(
            self.engine, self.folder, Monitor(1e9), self.guard, self.told.append, refuse, Slots(lambda: 9)
        )
        self.watch = Watch(self.searcher)
        self.count = 0

    def start(self):
        """Return Tune's id and the work of the next segment; None if there is none."""
        self.count += 1
        config = self.searcher.suggest(str(self.count))
        if not isinstance(config, dict):
            return config
        self.boards.append(self.searcher.running[str(self.count)][1])
        return str(self.count), json.loads(config["segment"])

    def close(self):
        for board in self.boards:
            board.close()
        self.ledger.close()

    def report(self, tune_id, epoch, value=0.5, last=False, diverged=False, done=False, images=()):
        values = {"epoch": epoch, "step": 2 * epoch, "duration_s": 0.1, "metrics": {"val/miou": value}}
        result = {"result": json.dumps({**values, "last": last, "diverged": diverged}), "images": images}
        if done:
            self.searcher.on_trial_complete(tune_id, result | {"done": True})
            self.watch.on_step_end(0, [])
        else:
            self.searcher.on_trial_result(tune_id, result)

    def fail(self, tune_id, error):
        """Fail as Tune does: the searcher first, then the callback, then the end of its step."""
        self.searcher.on_trial_complete(tune_id, error=True)
        self.searcher.explain(tune_id, error)
        self.watch.on_step_end(0, [])

    def kinds(self, *kinds):
        return [event for event in self.ledger.events if event["event"] in kinds]

    def checkpoint(self, work):
        path = self.folder.attempt(work["segment"]["trial_id"], work["segment"]["attempt"]) / "epoch-00001.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weights")
        return path


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(**options):
        made.append(Bench(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def broken(text="boom"):
    return RayTaskError("train", f"Traceback\nValueError: {text}", ValueError(text))


def test_rungs_last_epochs_and_divergence_reach_the_engine_and_the_work_has_its_limit(bench):
    one = bench()
    tune_id, work = one.start()
    assert (work["segment"]["until"], work["segment"]["start"], work["trial_minutes"]) == (2, 0, 3)
    one.report(tune_id, 1)
    one.report(tune_id, 2, done=True)
    assert [event["event"] for event in one.ledger.events[-2:]] == ["epoch", "rung"]
    others = [one.start() for _ in range(3)]
    for tune_id, _ in others[:2]:
        one.report(tune_id, 2, value=0.4, done=True)
    one.report(others[2][0], 1, diverged=True, done=True)
    assert len(one.kinds("diverged")) == 1
    tune_id, work = one.start()
    assert (work["segment"]["until"], work["segment"]["start"], work["segment"]["attempt"]) == (4, 2, 2)
    one.report(tune_id, 4, last=True, done=True)
    assert len(one.kinds("trial_finished")) == 1


def test_checkpoints_of_decided_trials_are_deleted_and_no_others(bench):
    one = bench()
    running = [one.start() for _ in range(4)]
    paths = {work["segment"]["label"]: one.checkpoint(work) for _, work in running}
    for position, (tune_id, _) in enumerate(running):
        one.report(tune_id, 2, value=float(position), done=True)
    assert {label: path.exists() for label, path in paths.items()} == {
        "sar search 0": False,  # stopped at the rung: the other one of its arm is better
        "sar search 1": True,
        "plain search 0": False,
        "plain search 1": True,
    }
    tune_id, work = one.start()
    path = one.checkpoint(work)
    one.fail(tune_id, broken())
    assert path.exists()
    tune_id, work = one.start()
    assert work["segment"]["attempt"] == 2 if work["segment"]["label"] != "sar search 1" else 3
    path = one.checkpoint(work)
    one.report(tune_id, 4, last=True, done=True)
    assert not path.exists()


def test_confirm_trials_keep_their_final_weights(bench):
    one = bench()
    while work := one.start():
        if not isinstance(work, tuple):
            break
        tune_id, work = work
        path = one.checkpoint(work)
        path.with_name("weights-00004.pt").write_text("final")
        last = work["segment"]["until"] == 4
        one.report(tune_id, work["segment"]["until"], last=last, done=True)
    assert work == Searcher.FINISHED
    assert one.engine.done
    kept = sorted(path.name for path in (one.folder.root / "trials").rglob("*.pt"))
    assert kept == ["weights-00004.pt", "weights-00004.pt"]
    phases = {event["trial_id"]: event["phase"] for event in one.kinds("trial_started")}
    with_weights = {path.parents[1].name for path in (one.folder.root / "trials").rglob("weights-*.pt")}
    assert {phases[name] for name in with_weights} == {"confirm"}


def test_what_a_killed_driver_left_of_decided_trials_is_deleted_at_the_next_start(bench):
    one = bench()
    tune_id, work = one.start()
    one.report(tune_id, 1, diverged=True, done=True)
    path = one.checkpoint(work)
    one.open()
    assert not path.exists()


def test_a_failure_is_recorded_by_kind_and_reason_and_said_once(bench, capsys):
    one = bench()
    tune_id, work = one.start()
    one.fail(tune_id, broken("no luck"))
    (event,) = one.kinds("failed")
    assert json.loads(event["payload"]) == {"reason": "ValueError: no luck", "kind": "crashed"}
    log = one.folder.trial(work["segment"]["trial_id"]) / "log.txt"
    said = capsys.readouterr().out
    assert f"sar search 0: attempt 1 failed (crashed): ValueError: no luck ({log})\n" in said


def test_a_failure_is_not_recorded_before_its_reason_is_known(bench):
    """Tune tells the searcher of a failure before it tells the callback which has the reason."""
    one = bench()
    tune_id, _ = one.start()
    one.searcher.on_trial_complete(tune_id, error=True)
    assert not one.kinds("failed")


def test_a_segment_out_of_reach_waits_until_its_node_is_known_to_be_dead(bench, monkeypatch):
    one = bench()
    dead = set()
    monkeypatch.setattr(failures, "dead_nodes", lambda: dead)
    tune_id, work = one.start()
    log = one.folder.trial(work["segment"]["trial_id"]) / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text(failures.heading("x", "0" * 16, 1, 7, "abc") + "\n")
    one.fail(tune_id, ActorUnavailableError("RPC error: Socket closed", None))
    one.watch.on_step_end(0, [])
    assert not one.kinds("failed")
    other, _ = one.start()  # the others go on meanwhile
    one.report(other, 1)
    dead.add("abc")
    one.watch.on_step_end(0, [])
    (event,) = one.kinds("failed")
    assert json.loads(event["payload"])["kind"] == "preempted"
    assert "attempt 1 failed: preempted: its node was lost" in log.read_text()


@pytest.mark.parametrize("how", ["final", "late"])
def test_a_segment_out_of_reach_on_a_node_that_lives_is_recorded_in_the_end(bench, monkeypatch, how):
    one = bench()
    tune_id, _ = one.start()
    one.fail(tune_id, ActorUnavailableError("RPC error: Socket closed", None))
    assert not one.kinds("failed")
    monkeypatch.setattr(failures, "UNSURE_S", failures.UNSURE_S if how == "final" else 0.0)
    one.searcher.record_ended(final=how == "final")
    (event,) = one.kinds("failed")
    assert "the connection to the worker process was lost" in event["payload"]


def test_no_segment_starts_that_could_overshoot_max_trials(bench):
    one = bench(max_trials=2)
    first, second = one.start(), one.start()
    assert one.start() is None
    one.report(first[0], 1, diverged=True, done=True)
    assert one.start() is None  # one decided, one running
    one.report(second[0], 2, done=True)
    third = one.start()
    assert third is not None
    assert one.start() is None
    one.report(third[0], 1, diverged=True, done=True)
    assert one.engine.spent()[0] == 2


@pytest.mark.parametrize("after", ["a step", "a question"])
def test_a_reached_limit_is_seen_after_tunes_step_and_while_tune_only_asks(bench, monkeypatch, after):
    monkeypatch.setattr(limits, "LOOK_S", 0.0)
    one = bench(max_trials=1)
    tune_id, _ = one.start()
    if after == "a question":  # Tune waits for a trial in a loop of its own, without steps
        monkeypatch.setattr(one.watch, "on_step_end", lambda *arguments: None)
    one.report(tune_id, 1, diverged=True, done=True)
    assert not (after == "a question" and one.told)
    assert one.start() is None
    assert set(one.told) == {"limits.max_trials=1 is reached: 1 trials are decided"}


@pytest.mark.parametrize("where", ["ledger", "tensorboard"])
def test_a_study_that_cannot_be_recorded_is_given_up_at_once(bench, monkeypatch, where):
    one = bench()
    tune_id, _ = one.start()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    if where == "ledger":
        monkeypatch.setattr(one.ledger, "append", full)
    else:
        monkeypatch.setattr(one.searcher.running[tune_id][1], "scalars", full)
    with pytest.raises(UserError, match=r"No space left on device.*nothing finished is lost") as error:
        one.report(tune_id, 2, done=True)
    assert error.value.where == str(one.folder.root)
    assert len(one.kinds("rung")) == (where == "tensorboard")  # the ledger comes first


def test_a_mistake_that_the_engine_finds_in_a_result_ends_the_run_as_it_is(bench):
    one = bench()
    tune_id, _ = one.start()
    values = {"epoch": 1, "step": 2, "duration_s": 0.1, "metrics": {"val/accuracy": 1.0}, "diverged": False}
    with pytest.raises(UserError, match="trials have no metric 'val/miou'"):
        one.searcher.on_trial_result(tune_id, {"result": json.dumps(values | {"last": False})})


FULL = """
import resource, signal, struct, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_searcher import Bench
from sarx.cluster.driver import Leaving

one = Bench(Path({root!r}))
one.searcher.give_up = Leaving(one.ledger, one.folder, one.searcher.monitor).given_up
running = [one.start() for _ in range(4)]
for tune_id, _ in running:
    one.report(tune_id, 2, done=True)
tune_id, _ = one.start()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = one.ledger.path.stat().st_size + {room}
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
one.report(tune_id, 3)
print("one epoch", flush=True)
one.report(tune_id, 4, last=True, done=True, images=[("x", 20 * struct.pack(">I", 4) + bytes({picture}))])
print("not reached", flush=True)
"""


@pytest.mark.parametrize(("where", "room", "picture"), [("ledger", 300, 10), ("tensorboard", 5000, 50_000)])
def test_a_real_limit_of_the_disk_ends_with_one_message_and_keeps_what_is_recorded(
    where, room, picture, tmp_path
):
    code = FULL.format(tests=str(Path(__file__).parent), root=str(tmp_path), room=room, picture=picture)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False, cwd=CHECKOUT
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "not reached" not in done.stdout
    message, *rest = done.stderr.splitlines()
    assert message.startswith(f"error: {tmp_path}/small: the study cannot be recorded any more (")
    assert "File too large" in message or "is the disk full" in message
    assert "nothing finished is lost. Free space there or make it writable, then the same command" in message
    assert rest[0] == f"results: {tmp_path}/small"
    kinds = [event["event"] for event in read_events(tmp_path / "small" / "ledger")]
    if where == "tensorboard":
        assert kinds[-1] == "stopping"
        assert kinds.count("trial_finished") == 1
        assert len(rest) == 1
    else:
        assert kinds[-1] in ("trial_started", "epoch")
        assert rest[1:] == ["the ledger has no event of this stop; it needs none"]
    assert kinds.count("rung") == 4
