"""One driver at a time, by flock or by lease; a killed one needs no unlocking, a replaced one is refused."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import sarx.study.lock as lock
from sarx.config.errors import UserError
from sarx.study.ledger import Ledger, read_events
from sarx.study.ledger_files import LedgerFile, events_file, read_file
from sarx.study.lock import Holder, holder, lock_kind, take_lock

DRIVER = """
import sys
from pathlib import Path
import sarx.study.lock as lock
from sarx.study.ledger import Ledger
folder, kind, lock.RENEW_S, lock.EXPIRY_S = Path(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:])
ledger = Ledger(folder, lock_kind=kind)
ledger.append("stopping", sync=True)
print("open", flush=True)
for word in sys.stdin:
    if word == "blindly\\n":
        ledger._lock.check = lambda: None
    try:
        print(ledger.append("stopping", sync=True)["seq"], flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""
RACER = """
import sys, time
from pathlib import Path
import sarx.study.lock as lock
from sarx.config.errors import UserError
from sarx.study.ledger import Ledger
lock.RENEW_S = 0.02
kept = []
print("ready", flush=True)
for line in sys.stdin:
    folder, _, at = line.rpartition(" ")
    while time.time() < float(at):
        pass
    try:
        kept.append(Ledger(Path(folder), lock_kind="lease"))
        kept[-1].append("stopping", sync=True)
        print("won", kept[-1].fence, file=sys.stderr, flush=True)
    except UserError as error:
        print("lost", error, file=sys.stderr, flush=True)
"""


@contextlib.contextmanager
def process(code, *arguments, answers="stdout"):
    """Run code in a process of its own; yields it, once it is ready, and a function that tells it a line."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, answers: subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **pipes) as child:
        try:
            child.stdout.readline()

            def tell(line):
                child.stdin.write(line + "\n")
                child.stdin.flush()

            yield child, tell
        finally:
            child.kill()


@pytest.fixture
def quick(monkeypatch):
    """Let leases be renewed every 0.05 s and end after 0.4 s."""
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    monkeypatch.setattr(lock, "EXPIRY_S", 0.4)


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a ledger whose study is called study."""
    path = tmp_path / "study" / "ledger"
    path.mkdir(parents=True)
    return path


def lease_of(folder):
    return json.loads((folder / "lease.json").read_text())


def write_lease(folder, fence=1, **changes):
    """Write the lease of a living driver on another host, which has claimed its fence."""
    now = time.time()
    lease = {
        "host": "elsewhere",
        "machine": "other",
        "pid": 17,
        "start": 5,
        "since": now - 500,
        "fence": fence,
    }
    lease |= {"heartbeat": now, "released": False, **changes}
    events_file(folder, fence).touch()
    (folder / "lease.json").write_text(json.dumps(lease))


def refused(folder):
    """Return what a contender for the lease is told."""
    with pytest.raises(UserError) as caught:
        Ledger(folder, lock_kind="lease")
    assert caught.value.where == str(folder.parent)
    return caught.value.message


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:28 / /data rw,relatime shared:1 - xfs /dev/vdb rw
31 30 0:29 / /data/far\\040away rw - nfs4 server:/x rw
32 30 0:30 / /data/auto rw - xfs /dev/vdc rw
33 32 0:31 / /data/auto rw master:3 propagate_from:2 - lustre lnet:/y rw
34 27 0:32 / /new rw - futurefs none rw
35 27 0:33 / /run/mem rw - tmpfs tmpfs rw
36 27 0:34 / /cloud rw - fuse.gcsfuse bucket rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/a", "flock"),
        ("/data", "flock"),
        ("/data/b", "flock"),
        ("/database", "flock"),
        ("/data/far away/b", "lease"),
        ("/data/auto/b", "lease"),
        ("/new/b", "lease"),
        ("/run/mem/b", "flock"),
        ("/cloud", "lease"),
    ],
)
def test_the_kind_follows_the_file_system(tmp_path, path, kind):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert lock_kind(Path(path), tmp_path / "mounts") == kind
    assert lock_kind(Path(path), tmp_path / "none") == "lease"


@pytest.mark.parametrize("kind", ["flock", "lease"])
def test_a_killed_driver_leaves_nothing_to_unlock(folder, kind, monkeypatch):
    with process(DRIVER, folder, kind, 10, 60) as (child, _):
        with pytest.raises(UserError, match=rf"study: this study is already running \(pid {child.pid} on"):
            Ledger(folder, lock_kind=kind)
        who = holder(folder)
        assert (who.pid, who.alive) == (child.pid, True)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the process table
        assert holder(folder) == (None if kind == "flock" else Holder(who.host, who.pid, who.since, False))
        began = time.monotonic()
        with Ledger(folder, lock_kind=kind) as ledger:
            assert [event["event"] for event in ledger.events] == ["stopping"]
            assert ledger.fence == 2
        assert time.monotonic() - began < 5  # without waiting for the lease to end


@pytest.mark.parametrize("kind", ["flock", "lease"])
def test_the_holder_is_known_while_it_holds(folder, kind):
    assert holder(folder) is None
    assert list(folder.iterdir()) == []
    ledger = Ledger(folder, lock_kind=kind)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    who = holder(folder)
    assert (who.pid, who.alive) == (os.getpid(), True)
    assert str(who) == f"pid {who.pid} on {who.host} since {who.since}"
    assert time.strptime(who.since, "%Y-%m-%d %H:%M:%S")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    ledger.close()
    assert holder(folder) is None


def test_looking_does_not_keep_a_driver_from_starting(folder):
    """Whoever looks holds the lock for a moment, shared."""
    Ledger(folder, lock_kind="flock").close()
    with (folder / "lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        end = threading.Timer(0.1, fcntl.flock, [looking, fcntl.LOCK_UN])
        end.start()
        Ledger(folder, lock_kind="flock").close()
        end.join()


def test_a_lease_is_renewed_and_released(folder, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    with Ledger(folder, lock_kind="lease") as ledger:
        first = lease_of(folder)
        assert (first["pid"], first["fence"], first["released"]) == (os.getpid(), 1, False)
        deadline = time.monotonic() + 10
        while lease_of(folder)["heartbeat"] < first["heartbeat"] + 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "already running" in refused(folder)
        ledger.append("stopping")
    assert lease_of(folder)["released"]
    with Ledger(folder, lock_kind="lease") as ledger:
        assert (ledger.fence, len(ledger.events)) == (2, 1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "events-000001.ndjson",
        "events-000002.ndjson",
        "lease.json",
    ]


def test_a_living_driver_elsewhere_is_named(folder):
    write_lease(folder)
    said = refused(folder)
    assert "already running (pid 17 on elsewhere since " in said
    assert said.endswith(" s")
    assert "if that host is gone, start again in " in said.lower()
    assert not events_file(folder, 2).exists()


@pytest.mark.parametrize("age", [100, -100], ids=["old", "of the future"])
def test_an_expired_lease_is_taken_over_after_watching(folder, quick, age, capsys):
    write_lease(folder, heartbeat=time.time() - age)
    assert holder(folder).alive is False
    began = time.monotonic()
    with Ledger(folder, lock_kind="lease") as ledger:
        assert ledger.fence == 2
    assert time.monotonic() - began >= 2 * lock.RENEW_S
    assert "the last driver (pid 17 on elsewhere since " in capsys.readouterr().out


def test_a_lease_that_only_looks_expired_is_respected(folder, monkeypatch):
    """The clock of the other host is 100 s behind."""
    monkeypatch.setattr(lock, "RENEW_S", 1.0)
    write_lease(folder, heartbeat=time.time() - 100)
    done = threading.Event()

    def renew():
        while not done.wait(0.05):
            write_lease(folder, heartbeat=time.time() - 100)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        assert "already running" in refused(folder)
    finally:
        done.set()
        thread.join()
    assert not events_file(folder, 2).exists()


@pytest.mark.parametrize("how", ["another start time", "released"])
def test_a_lease_without_a_process_is_taken_over_at_once(folder, how):
    with Ledger(folder, lock_kind="lease"):
        lease = lease_of(folder)
    changes = {"released": True} if how == "released" else {"start": lease["start"] - 1}
    write_lease(folder, **{**lease, "heartbeat": time.time(), **changes})
    began = time.monotonic()
    with Ledger(folder, lock_kind="lease") as ledger:
        assert ledger.fence == 2
    assert time.monotonic() - began < 5


def test_a_dead_pid_of_another_process_namespace_says_nothing(folder):
    with Ledger(folder, lock_kind="lease"):
        lease = lease_of(folder)
    write_lease(folder, **{**lease, "machine": "other boot", "start": 1, "released": False})
    assert "already running" in refused(folder)


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"[]", b'{"host": "a"}', None])
def test_an_unreadable_lease_is_watched_and_taken_over(folder, quick, content):
    """As is a fence that was claimed by a driver that died before it wrote its lease (None)."""
    events_file(folder, 3).touch()
    if content is None:
        write_lease(folder, 2, released=True)
    else:
        (folder / "lease.json").write_bytes(content)
    assert holder(folder) is None
    began = time.monotonic()
    with Ledger(folder, lock_kind="lease") as ledger:
        assert ledger.fence == 4
    assert time.monotonic() - began >= 2 * lock.RENEW_S


@pytest.mark.parametrize("kind", ["flock", "lease"])
def test_a_replaced_driver_records_nothing_more(folder, kind, quick):
    ledger = Ledger(folder, lock_kind=kind)
    ledger.append("stopping")
    write_lease(folder, 2)
    with pytest.raises(UserError, match=r"study: another driver has taken over this study \(pid 17 on"):
        ledger.append("stopping")
    events_file(folder, 2).unlink()
    with pytest.raises(UserError, match="another driver has taken over"):  # lost is lost
        ledger.append("stopping")
    taken = (folder / "lease.json").read_text()
    time.sleep(0.2)
    ledger.close()
    assert (folder / "lease.json").read_text() == taken
    assert len(read_events(folder)) == 1


def test_closing_leaves_the_lease_of_the_successor_alone(folder):
    ledger = Ledger(folder, lock_kind="lease")
    write_lease(folder, 2)
    taken = (folder / "lease.json").read_text()
    ledger.close()
    assert (folder / "lease.json").read_text() == taken


def test_a_ledger_whose_files_are_removed_is_an_error(folder):
    ledger = Ledger(folder)
    ledger.path.unlink()
    with pytest.raises(UserError, match="ledger: the ledger's files were removed while it was open"):
        ledger.append("stopping")
    ledger.close()


def test_the_loser_of_a_claim_is_refused(folder):
    for kind in ("flock", "lease"):
        contender = take_lock(folder, kind)
        events_file(folder, contender.fence).touch()
        with pytest.raises(UserError, match="another driver has just started it"):
            contender.claim()
        contender.close()
        for path in folder.iterdir():
            path.unlink()


def test_after_a_long_pause_the_lease_is_looked_at_too(folder, monkeypatch):
    """A folder listing may come from a cache; the content of a file that is opened anew does not."""
    ledger = Ledger(folder, lock_kind="lease")
    write_lease(folder, 2)
    events_file(folder, 2).unlink()
    ledger.append("stopping")
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + lock.EXPIRY_S / 2 + 1)
    with pytest.raises(UserError, match="another driver has taken over"):
        ledger.append("stopping")
    ledger.close()


def test_a_lower_fence_in_the_lease_is_overwritten(folder, quick):
    """A driver that was stopped in the middle of a renewal writes its lease over that of its successor."""
    events_file(folder, 1).touch()
    with Ledger(folder, lock_kind="lease") as ledger:
        write_lease(folder, 1)
        deadline = time.monotonic() + 10
        while lease_of(folder)["fence"] != 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ledger.append("stopping")


def test_renewing_survives_errors(folder, quick, monkeypatch):
    with Ledger(folder, lock_kind="lease") as ledger:
        failed = []

        def fail(path, target):
            failed.append(path)
            raise OSError("stale file handle")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", fail)
            while len(failed) < 3:
                time.sleep(0.01)
            ledger.append("stopping")
        before = lease_of(folder)["heartbeat"]
        deadline = time.monotonic() + 10
        while lease_of(folder)["heartbeat"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("word", ["checking", "blindly"])
def test_a_driver_that_was_stopped_and_replaced_does_not_count(folder, quick, word):
    with process(DRIVER, folder, "lease", 0.05, 0.4) as (child, tell):
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        with Ledger(folder, lock_kind="lease") as ledger:
            assert len(ledger.events) == 1
            ledger.append("study_finished", sync=True)
            child.send_signal(signal.SIGCONT)
            tell(word)
            answer = child.stdout.readline()
            if word == "blindly":
                assert answer == "1\n"
                assert len(read_file(LedgerFile(events_file(folder, 1), 1)).events) == 2
            else:
                assert answer.startswith("UserError ")
                assert f"taken over this study (pid {os.getpid()} on" in answer
            ledger.append("study_finished", sync=True)
        assert [event["fence"] for event in read_events(folder)] == [1, 2, 2]


def test_of_two_contenders_one_wins(tmp_path):
    with (
        process(RACER, answers="stderr") as (one, tell_one),
        process(RACER, answers="stderr") as (other, tell_other),
    ):
        for round_number in range(20):
            folder = tmp_path / str(round_number)
            folder.mkdir()
            write_lease(folder, heartbeat=time.time() - 100)
            for tell in (tell_one, tell_other):
                tell(f"{folder} {time.time() + 0.05}")
            answers = sorted(child.stderr.readline().rstrip() for child in (one, other))
            assert "already running" in answers[0]
            assert answers[1] == "won 2"
            assert len(read_events(folder)) == 1
            assert not events_file(folder, 3).exists()
