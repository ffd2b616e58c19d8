"""The commands on a study on an object store: the same words and tables as from a folder."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from analysis import remote
from analysis.__main__ import main as analyze
from analysis.ledger import read_ledger
from sarx import boards
from sarx.cluster import node_probe
from sarx.config.errors import UserError
from sarx.status import main as status
from sarx.study.ledger_at import open_ledger, read_events
from sarx.study.storage import open_study_folder, storage_place, working_copy
from sarx.study.store_object import store_of
from sarx.study.urls import Url
from sarx.tensorboard import Board
from sarx.tune import main as tune
from tests import s3_server

pytestmark = pytest.mark.skipif(bool(s3_server.MISSING), reason=s3_server.WHY)
ROOT = Path(__file__).parents[1]
OPENING = {
    "question": "Does it help?",
    "arms": [{"arm": "sar", "level": "", "parameters": []}],
    "trials_per_arm": 1,
    "seeds": 1,
    "file": "max_failures: 0\n",
    "command": "python -m sarx.tune s.yaml",
}


@pytest.fixture(scope="module")
def server():
    with s3_server.s3_server() as port:
        s3_server.make_bucket(port, "bucket")
        yield port


@pytest.fixture
def storage(server, request, monkeypatch, tmp_path):
    """Return a storage of its own on the server."""
    for name, value in s3_server.environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SARX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SARX_STORAGE", f"s3://bucket/{request.node.name}")
    store_of.cache_clear()
    yield Url("s3", "bucket", request.node.name)
    store_of.cache_clear()


def failed_study(storage, name="small"):
    with open_ledger(storage / name / "ledger") as ledger:
        ledger.append("study_opened", payload=json.dumps(OPENING))
        ledger.append("proposed", arm="sar", level="", phase="search", index=0, trial_id="abc")
        ledger.append("trial_started", trial_id="abc", attempt=1)
        payload = json.dumps({"reason": "boom", "kind": "crashed"})
        ledger.append("failed", trial_id="abc", attempt=1, payload=payload)


def test_status(storage, capsys):
    assert status([]) == 0
    assert capsys.readouterr().out == f"no study in {storage} yet\n"
    failed_study(storage)
    assert status([]) == 0
    assert capsys.readouterr().out.startswith("small  stopped  1 of 1 trials decided, last event ")
    assert status(["small"]) == 0
    out = capsys.readouterr().out
    assert "sar search 0  abc  crashed: boom" in out
    assert f"{storage}/small/trials/abc/log.txt" in out
    assert status(["smal"]) == 2
    assert "did you mean 'small'?" in capsys.readouterr().err
    with open_ledger(storage / "small" / "ledger"):
        assert status(["small", "--retry-failed"]) == 2
        assert f"is running (pid {os.getpid()} on " in capsys.readouterr().err
        assert status(["small"]) == 0
        assert f"small: running by pid {os.getpid()}" in capsys.readouterr().out
    assert status(["--retry-failed"]) == 0
    assert "the next run continues these" in capsys.readouterr().out
    assert read_events(storage / "small" / "ledger")[-1]["event"] == "retried"


def test_what_is_said_of_a_store_that_cannot_be_used(storage, capsys, monkeypatch):
    monkeypatch.setenv("SARX_STORAGE", "s3://no-such-bucket/x")
    demo = str(ROOT / "search_spaces" / "demo.yaml")
    for command, arguments in ((status, []), (analyze, ["demo"]), (tune, [demo])):
        assert command(arguments) == 2
        said = capsys.readouterr().err
        assert "s3://no-such-bucket/x" in said
        assert "there is no such bucket" in said
        assert len(said.splitlines()) == 1
        assert "secret" not in said
    monkeypatch.setenv("SARX_STORAGE", "s3://key:secret@bucket/x")
    for command, arguments in ((status, []), (analyze, ["demo"]), (tune, [demo])):
        assert command(arguments) == 2
        said = capsys.readouterr().err
        assert "credentials come from the environment" in said
        assert "secret" not in said


def test_a_node_says_whether_it_reaches_the_store(storage):
    assert node_probe.storage(str(storage), "mark")["unwritable"] == ""
    assert "there is no such bucket" in node_probe.storage("s3://no-such-bucket/x", "mark")["unwritable"]
    assert store_of(storage).listing() == []


def test_single_trainings_need_a_folder(storage):
    done = subprocess.run(
        [sys.executable, "-m", "sarx.train", "data=digit_scenes"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: storage: {storage}: this command needs a folder")


def segments_of(study, storage, per_segment=50):
    """Put a local ledger of version 1 on the store as a driver with fence 1 would have written it."""
    lines = (study / "ledger" / "events.ndjson").read_text().splitlines()
    for number, start in enumerate(range(0, len(lines), per_segment)):
        raw = []
        for line in lines[start : start + per_segment]:
            event = json.loads(line) | {"fence": 1}
            del event["crc"]
            text = json.dumps(event, separators=(",", ":"))
            raw.append(f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n')
        name = f"ledger/events-000001-{number:06d}.ndjson"
        store_of(storage / study.name).put(name, "".join(raw).encode())


@pytest.fixture
def whole(tmp_path):
    """Return the folder of a whole study, as the tests of analysis write it."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("writer", ROOT / "tests" / "analysis" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    writer = module.LedgerWriter(tmp_path / "local" / "sar-ablation")
    module.write_whole_study(writer)
    return writer.study


def test_the_table_is_that_of_a_folder(storage, whole, capsys, monkeypatch):
    segments_of(whole, storage)
    assert analyze(["--storage", str(whole.parent)]) == 0
    capsys.readouterr()
    assert analyze([]) == 0
    out = capsys.readouterr().out
    assert f"{storage}/sar-ablation/report/table.csv" in out
    store = store_of(storage / "sar-ablation")
    for name in ("table.csv", "table.md", "trials.csv"):
        assert store.read(f"report/{name}")[0] == (whole / "report" / name).read_bytes()
    assert analyze(["sar-ablatoin"]) == 2
    assert "did you mean 'sar-ablation'?" in capsys.readouterr().err


def test_only_what_has_changed_is_copied_again(storage, whole, monkeypatch):
    import obstore

    segments_of(whole, storage)
    store = store_of(storage / "sar-ablation")
    store.put("trials/abc/attempt-1/geometry.npz", b"old")
    for left_out in ("attempt-1/weights-00002.pt", "log.txt"):
        store.put(f"trials/abc/{left_out}", b"x")
    copied, get = [], obstore.get
    monkeypatch.setattr(obstore, "get", lambda client, key: copied.append(key) or get(client, key))
    folder = remote.open_remote(str(storage), None).fetch()
    events = read_ledger(folder).events
    assert len(events) == len((whole / "ledger" / "events.ndjson").read_text().splitlines())
    first = len(copied)
    assert first == 1 + len(list((folder / "ledger").iterdir()))
    store.put("trials/abc/attempt-1/geometry.npz", b"new")
    assert remote.open_remote(str(storage), "sar-ablation").fetch() == folder
    assert [key.rpartition("/")[2] for key in copied[first:]] == ["geometry.npz"]
    assert (folder / "trials/abc/attempt-1/geometry.npz").read_bytes() == b"new"
    assert not (folder / "trials/abc/log.txt").exists()


def test_a_compacted_ledger_is_read_without_what_it_covers(storage, whole):
    segments_of(whole, storage, per_segment=40)
    store = store_of(storage / "sar-ablation")
    plain = read_ledger(remote.open_remote(str(storage), None).fetch()).events
    names = [item.name for item in store.listing("ledger")]
    store.put("ledger/compacted/compacted-000001.ndjson", b"".join(store.read(name)[0] for name in names))
    folder = remote.open_remote(str(storage), None).fetch()
    assert [path.name for path in (folder / "ledger").iterdir()] == ["compacted-000001.ndjson"]
    assert read_ledger(folder).events.equals(plain)


def test_which_objects_of_a_ledger_count():
    names = [f"events-{fence:06d}-{number:06d}.ndjson" for fence in (1, 2, 3) for number in (0, 1)]
    assert remote.ledger_objects([*names, "lease.json"]) == set(names)
    compacted = ["compacted/compacted-000001.ndjson", "compacted/compacted-000002.ndjson"]
    assert remote.ledger_objects([*names, *compacted]) == {compacted[1], *names[4:]}
    assert remote.ledger_objects(names[1:]) is None


def test_a_segment_is_never_torn(storage, whole, capsys):
    segments_of(whole, storage)
    store = store_of(storage / "sar-ablation")
    last = store.listing("ledger")[-1].name
    store.put(last, store.read(last)[0][:-10])
    assert analyze([]) == 2
    assert "a bad line in the middle of the ledger" in capsys.readouterr().err


def test_curves_are_copied_and_followed(storage, tmp_path):
    failed_study(storage)
    source = tmp_path / "run"
    board = Board(source)
    (file,) = source.iterdir()
    store = store_of(storage / "small")
    store.put(f"tensorboard/sar/run/{file.name}", file.read_bytes())
    place = boards.copies(storage)
    assert boards.bring(storage, "small", place) == 1
    assert boards.bring(storage, "", place) == 0
    board.scalars(1, {"val/miou": 0.5}, 1.0)
    board.close()
    store.put(f"tensorboard/sar/run/{file.name}", file.read_bytes())
    assert boards.bring(storage, "", place) == 1
    assert (place / "small/tensorboard/sar/run" / file.name).read_bytes() == file.read_bytes()


def test_curves_of_a_folder_are_shown_where_they_lie(monkeypatch, tmp_path):
    monkeypatch.setenv("SARX_STORAGE", str(tmp_path))
    run = []

    def execv(program, command):
        run.append(command[3:])
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    for given in (["small", "--port", "7"], ["--port", "7"]):
        with pytest.raises(SystemExit):
            boards.main(given)
    for command, name in zip(run, ("small", ""), strict=True):
        assert command == ["--host", "127.0.0.1", "--logdir", str(tmp_path / name), "--port", "7"]


def test_places(storage, tmp_path, monkeypatch):
    assert storage_place(None) == storage
    assert storage_place(f"file://{tmp_path}") == tmp_path
    folder = open_study_folder(storage, "small")
    assert folder.root == working_copy(storage / "small")
    assert folder.root.is_relative_to(tmp_path / "cache")
    assert folder.place == storage / "small"
    assert str(folder.shown(folder.trial("t") / "log.txt")) == f"{storage}/small/trials/t/log.txt"
    assert open_study_folder(tmp_path, "small").place == tmp_path / "small"
    monkeypatch.setenv("SARX_CACHE", "/proc/no")
    with pytest.raises(UserError, match=r"^s3://bucket/.*: its working copy cannot be written to /proc/no"):
        open_study_folder(storage, "small")
    shutil.rmtree(tmp_path / "cache")
