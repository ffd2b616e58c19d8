"""Files between working copies and an object store: what one machine sends another can continue from."""

import hashlib
import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from sarx.cluster.leftovers import Leftovers
from sarx.cluster.segment_run import SegmentRun, decode_work, encode_work
from sarx.cluster.transfer import Carrier, Publisher, bring_logs, delete_checkpoints, publishing, send_log
from sarx.search.claims import Segment
from sarx.study.schema import Resources
from sarx.study.storage import StudyFolder
from sarx.study.store import StoreError
from sarx.study.store_object import store_of
from sarx.study.urls import Url
from sarx.training import checkpoint

_NUMBERS = itertools.count()
TRIAL = "0123456789abcdef"


@pytest.fixture
def url():
    return Url("memory", "x", f"transfer{next(_NUMBERS)}/tiny")


@pytest.fixture
def machine(tmp_path, url):
    """Return a function that gives the working copy of a machine by name."""

    def make(name):
        folder = StudyFolder(tmp_path / name / "tiny", url)
        folder.tensorboard.mkdir(parents=True, exist_ok=True)
        return folder

    return make


def names(url, below=""):
    return [item.name for item in store_of(url).listing(below)]


def save(folder, attempt, epoch, value):
    checkpoint.save(folder.attempt(TRIAL, attempt), epoch, {"epoch": epoch, "x": torch.full((1000,), value)})


def resumed(folder, *attempts):
    return checkpoint.newest([folder.attempt(TRIAL, number) for number in attempts])


def test_another_machine_continues_from_what_was_sent(machine, url):
    a, b = machine("a"), machine("b")
    carrier = Carrier(a, TRIAL, [1])
    carrier.bring()
    for epoch in (1, 2, 3):
        save(a, 1, epoch, float(epoch))
        carrier.send_checkpoints()
        kept = [f"trials/{TRIAL}/attempt-1/epoch-0000{n}" for n in (epoch - 1, epoch) if n]
        wanted = sorted(f"{name}.{kind}" for name in kept for kind in ("pt", "sha256"))
        assert names(url) == wanted  # the two last, as in a folder
    Carrier(b, TRIAL, [2, 1]).bring()
    state = resumed(b, 2, 1)
    assert state["epoch"] == 3
    assert torch.equal(state["x"], torch.full((1000,), 3.0))
    before = checkpoint.results_before([b.attempt(TRIAL, 1)], 1, 3)
    assert before == []  # these states hold no results; the file of epoch 2 is there
    assert (b.attempt(TRIAL, 1) / "epoch-00002.pt").exists()


def test_a_damaged_one_is_named_and_the_one_before_is_used(machine, url, capsys):
    a, b = machine("a"), machine("b")
    carrier = Carrier(a, TRIAL, [1])
    for epoch in (1, 2):
        save(a, 1, epoch, float(epoch))
    carrier.send_checkpoints()
    name = f"trials/{TRIAL}/attempt-1/epoch-00002.pt"
    raw, _ = store_of(url).read(name)
    store_of(url).put(name, raw[:700] + bytes([raw[700] ^ 1]) + raw[701:])
    Carrier(b, TRIAL, [2, 1]).bring()
    assert f"checkpoint {url}/{name} is damaged: its checksum does not match" in capsys.readouterr().out
    assert resumed(b, 2, 1)["epoch"] == 1


def test_one_whose_digest_never_came_does_not_count(machine, url):
    a, b = machine("a"), machine("b")
    save(a, 1, 1, 1.0)
    Carrier(a, TRIAL, [1]).send_checkpoints()
    store_of(url).put(f"trials/{TRIAL}/attempt-1/epoch-00002.pt", b"half of it")
    Carrier(b, TRIAL, [2, 1]).bring()
    assert resumed(b, 2, 1)["epoch"] == 1


def test_the_digest_comes_last(machine, url, monkeypatch):
    a = machine("a")
    save(a, 1, 1, 1.0)
    carrier, sent = Carrier(a, TRIAL, [1]), []

    def put(name, content):
        sent.append(name.rpartition("/")[2])
        if len(sent) == 2:
            raise StoreError(5, "the store gives no answer", name)

    monkeypatch.setattr(carrier.store, "put", put)
    with pytest.raises(StoreError):
        carrier.send_checkpoints()
    assert sent == ["epoch-00001.pt", "epoch-00001.sha256"]


def test_an_earlier_attempt_serves_where_a_later_one_has_none(machine):
    a, b = machine("a"), machine("b")
    for attempt, epoch in ((1, 4), (2, 5)):
        save(a, attempt, epoch, float(attempt))
        Carrier(a, TRIAL, [attempt]).send_checkpoints()
    c = Carrier(b, TRIAL, [4, 3, 2, 1])
    c.bring()
    assert resumed(b, 4, 3, 2, 1)["epoch"] == 5
    assert not (b.attempt(TRIAL, 1) / "epoch-00004.pt").exists()  # was not needed
    d = machine("d")
    Carrier(d, TRIAL, [3]).bring()  # attempts before the third were forgotten
    assert resumed(d, 3) is None


def test_the_working_copy_is_not_believed(machine):
    """What a machine has left from before and the store does not hold is not continued from."""
    a = machine("a")
    for attempt in (1, 2):
        save(a, attempt, 9, 9.0)
    Carrier(a, TRIAL, [2, 1]).bring()
    assert resumed(a, 2, 1) is None


def test_logs_go_on_where_another_machine_wrote(machine, url):
    a, b, driver = machine("a"), machine("b"), machine("driver")
    for folder, attempt in ((a, 1), (b, 2)):
        carrier = Carrier(folder, TRIAL, [attempt])
        carrier.bring()
        with (folder.trial(TRIAL) / "log.txt").open("a") as log:
            log.write(f"attempt {attempt}\n")
        with (folder.trial(TRIAL) / "attempts.ndjson").open("a") as log:
            log.write(f"{attempt}\n")
        carrier.send_logs()
    other = Carrier(b, TRIAL, [2], rank=1)
    (b.trial(TRIAL) / "log-rank1.txt").write_text("rank 1\n")
    (b.trial(TRIAL) / "log.txt").write_text("rank 0 has written more meanwhile\n")
    other.send_logs()
    bring_logs(driver, TRIAL)
    assert (driver.trial(TRIAL) / "log.txt").read_text() == "attempt 1\nattempt 2\n"
    assert (driver.trial(TRIAL) / "attempts.ndjson").read_text() == "1\n2\n"
    assert (driver.trial(TRIAL) / "log-rank1.txt").read_text() == "rank 1\n"
    with (driver.trial(TRIAL) / "log.txt").open("a") as log:
        log.write("the driver's word\n")
    send_log(driver, TRIAL)
    bring_logs(a, TRIAL)
    assert (a.trial(TRIAL) / "log.txt").read_text().endswith("the driver's word\n")


def test_only_resumable_checkpoints_are_deleted(machine, url):
    a = machine("a")
    save(a, 1, 1, 1.0)
    checkpoint.save(a.attempt(TRIAL, 1), 1, {"w": 1}, name="weights")
    (a.attempt(TRIAL, 1) / "geometry.npz").write_bytes(b"geometry")
    carrier = Carrier(a, TRIAL, [1])
    carrier.send_checkpoints()
    carrier.tidy()
    assert not a.attempt(TRIAL, 1).exists()
    delete_checkpoints(a, TRIAL)
    left = [name.rpartition("/")[2] for name in names(url)]
    assert left == ["geometry.npz", "weights-00001.pt", "weights-00001.sha256"]


def test_decided_trials_are_cleaned_in_the_store_too(machine, url):
    a = machine("a")
    save(a, 1, 1, 1.0)
    Carrier(a, TRIAL, [1]).send_checkpoints()
    events = [
        {"event": "trial_started", "trial_id": TRIAL, "phase": "search"},
        {"event": "trial_finished", "trial_id": TRIAL},
    ]
    engine = SimpleNamespace(
        ledger=SimpleNamespace(events=events), records={TRIAL: SimpleNamespace(status="finished")}
    )
    leftovers = Leftovers(engine, a)
    leftovers.clean()
    leftovers.close()
    assert names(url) == []
    assert not a.attempt(TRIAL, 1).exists()


class Training:
    """Gives results and writes checkpoints as the training loop does, without training."""

    def __init__(self, fails_at=0):
        self.fails_at = fails_at
        self.continued = None

    def __call__(self, work):
        folder, trial = work.folder, work.segment.trial_id
        attempts = range(work.segment.attempt, work.segment.since - 1, -1)
        state = checkpoint.newest([folder.attempt(trial, number) for number in attempts])
        self.continued = state["epoch"] if state else 0
        for epoch in range(self.continued + 1, 5):
            if epoch == self.fails_at:
                raise RuntimeError("it broke here")
            print(f"epoch {epoch}")
            checkpoint.save(folder.attempt(trial, work.segment.attempt), epoch, {"epoch": epoch})
            result = {"epoch": epoch, "step": epoch, "duration_s": 0.1, "metrics": {}}
            yield SimpleNamespace(**result, last=epoch == 4, diverged=False, module=None)


def work(folder, attempt, until=4, start=0):
    segment = Segment(TRIAL, attempt, "search", {"seed": 0}, "sar search 0", 0, until, start=start)
    return decode_work(encode_work(segment, folder.root, Resources(), url=str(folder.url)))


def test_a_segment_that_fails_on_one_machine_goes_on_on_another(machine, url):
    a, b = machine("a"), machine("b")
    run = SegmentRun(work(a, 1), Training(fails_at=3))
    for epoch in (1, 2):
        assert json.loads(run.advance()["result"])["epoch"] == epoch
        assert f"trials/{TRIAL}/attempt-1/epoch-0000{epoch}.sha256" in names(url)
    with pytest.raises(RuntimeError, match="it broke here"):
        run.advance()
    log = store_of(url).read(f"trials/{TRIAL}/log.txt")[0].decode()
    assert "attempt 1 failed: RuntimeError: it broke here" in log
    again = Training()
    other = SegmentRun(work(b, 2), again)
    answers = [other.advance() for _ in range(2)]
    assert again.continued == 2
    assert [json.loads(answer["result"])["epoch"] for answer in answers] == [3, 4]
    assert [answer["done"] for answer in answers] == [False, True]
    assert not b.attempt(TRIAL, 2).exists()  # nothing piles up on workers
    log = store_of(url).read(f"trials/{TRIAL}/log.txt")[0].decode()
    assert log.index("it broke here") < log.index("epoch 4")
    assert f"trials/{TRIAL}/config.yaml" in names(url)
    kept = [
        json.loads(line) for line in store_of(url).read(f"trials/{TRIAL}/attempts.ndjson")[0].splitlines()
    ]
    assert [entry["attempt"] for entry in kept] == [1, 2]


def test_a_segment_continues_at_a_rung(machine, url):
    a, b = machine("a"), machine("b")
    first = SegmentRun(work(a, 1, until=2), Training())
    assert [first.advance()["done"] for _ in range(2)] == [False, True]
    again = Training()
    second = SegmentRun(work(b, 2, start=2), again)
    assert [second.advance()["done"] for _ in range(2)] == [False, True]
    assert again.continued == 2


def test_what_the_driver_writes_is_sent_when_it_changes(machine, url):
    a = machine("a")
    (a.root / "study.yaml").write_text("study: tiny")
    board = a.tensorboard / "sar" / "search-00" / "events.out.tfevents.1"
    board.parent.mkdir(parents=True)
    board.write_bytes(b"one")
    for left_out in ("trials/x/log.txt", "report/table.csv", ".tune/x", "ledger/x"):
        (a.root / left_out).parent.mkdir(parents=True, exist_ok=True)
        (a.root / left_out).write_bytes(b"x")
    publisher = Publisher(a)
    publisher.start()
    board_name = "tensorboard/sar/search-00/events.out.tfevents.1"
    assert names(url) == ["study.yaml", board_name]
    board.write_bytes(b"one two")
    publisher.close()
    assert store_of(url).read(board_name)[0] == b"one two"
    publisher = Publisher(a)
    assert list(publisher._sent) == [board_name]  # is not sent again
    assert hashlib.sha256(store_of(url).read("study.yaml")[0]).digest()


def test_what_was_promised_comes_from_the_store(machine, url):
    a, b = machine("a"), machine("b")
    with publishing(a, fresh=True) as publish:
        (a.root / "study.lock").write_text("the promise")
        publish()
    (b.root / "study.lock").write_text("another one, of an earlier life")
    with publishing(b, fresh=False):
        assert (b.root / "study.lock").read_text() == "the promise"
    (a.root / "trials").mkdir()
    save(a, 1, 1, 1.0)
    with publishing(a, fresh=True):
        assert not (a.root / "trials").exists()


def test_a_study_in_a_folder_carries_nothing(tmp_path):
    folder = StudyFolder(tmp_path / "tiny")
    with publishing(folder, fresh=True):
        pass
    bring_logs(folder, TRIAL)
    send_log(folder, TRIAL)
    delete_checkpoints(folder, TRIAL)
    assert list(tmp_path.iterdir()) == []
    assert folder.place == tmp_path / "tiny"
    assert folder.shown(tmp_path / "tiny" / "x") == tmp_path / "tiny" / "x"
    assert "url" not in json.loads(
        encode_work(Segment(TRIAL, 1, "search", {}, "x", 0, 1), folder.root, Resources())
    )
