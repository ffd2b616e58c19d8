"""The array cache under races, kills, eviction and deletion."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sarx.data import cache
from sarx.data.cache import cached


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SARX_CACHE", str(tmp_path))
    return tmp_path


def make(value=1, size=10):
    return lambda: {"a": np.full(size, value, np.uint8), "b": np.arange(3)}


def entries(root):
    return sorted(path.name for path in (root / "arrays").iterdir())


def run(code, root):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "SARX_CACHE": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_made_once_and_mapped_read_only():
    first = cached("k", make(1))
    again = cached("k", make(2))
    for arrays in (first, again):
        assert isinstance(arrays["a"], np.memmap)
        np.testing.assert_array_equal(arrays["a"], np.ones(10))
        np.testing.assert_array_equal(arrays["b"], np.arange(3))
        with pytest.raises(ValueError, match="read-only"):
            arrays["a"][0] = 5
    assert cached("other", make(2))["a"][0] == 2


def test_root_follows_the_environment(monkeypatch, tmp_path):
    assert cache.cache_root() == tmp_path
    monkeypatch.delenv("SARX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache.cache_root()) == "/somewhere/sarx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_root().parts[-2:] == (".cache", "sarx")


def test_two_processes_race(root):
    code = (
        "import os, time, numpy as np; from sarx.data.cache import cached\n"
        "def make():\n    time.sleep(0.5); return {'a': np.full(100000, os.getpid())}\n"
        "print(cached('k', make)['a'].sum())"
    )
    racers = [run(code, root) for _ in range(2)]
    sums = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sums[0] == sums[1]
    assert len(entries(root)) == 1


def test_a_killed_writer_leaves_no_half_entry(root):
    code = (
        "import numpy as np, time; from sarx.data import cache\n"
        "save = np.save\n"
        "def slow(path, array):\n    save(path, array); print('one', flush=True); time.sleep(60)\n"
        "cache.np.save = slow\n"
        "cache.cached('k', lambda: {'a': np.zeros(9), 'b': np.zeros(9)})"
    )
    with run(code, root) as writer:
        assert writer.stdout.readline() == "one\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=30)
    (left,) = entries(root)
    assert left.startswith("tmp-")
    assert sorted(cached("k", make(3))) == ["a", "b"]
    old = time.time() - 2 * cache.STALE_S
    os.utime(root / "arrays" / left, (old, old))
    cached("another", make())
    assert left not in entries(root)


def test_a_fresh_temporary_folder_of_another_writer_stays(root):
    (root / "arrays" / "tmp-other").mkdir(parents=True)
    cached("k", make())
    assert "tmp-other" in entries(root)


def test_the_least_recently_used_goes_first(root, monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 3)
    stranger = root / "arrays" / "notes"
    stranger.mkdir(parents=True)
    now = time.time()
    for age, key in ((30, "x"), (20, "y"), (10, "z")):
        cached(key, make())
        newest = max((p for p in (root / "arrays").glob("entry-*")), key=lambda p: p.stat().st_mtime)
        os.utime(newest, (now - age, now - age))
    cached("x", make(9))  # a use makes it the newest
    kept = cached("w", make())
    assert len(list((root / "arrays").glob("entry-*"))) == 3
    assert stranger.is_dir()
    assert cached("x", make(9))["a"][0] == 1
    assert cached("y", make(9))["a"][0] == 9
    assert kept["a"][0] == 1


def test_deletion_while_mapped_is_harmless(root):
    arrays = cached("k", make(7, size=100_000))
    shutil.rmtree(root)
    assert arrays["a"].sum() == 700_000
    assert cached("k", make(8))["a"][0] == 8


def test_an_entry_with_a_lost_file_is_not_half_read(root):
    """Eviction renames before it deletes; a reader that opens files in between starts again."""
    cached("k", make(1))
    (entry,) = (root / "arrays").iterdir()
    entry.rename(root / "arrays" / "tmp-evicted")
    assert cached("k", make(2))["a"][0] == 2


def test_a_failing_maker_leaves_nothing(root):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cached("k", fail)
    assert not (root / "arrays").exists()


def test_a_damaged_entry_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SARX_CACHE", str(tmp_path))
    made = []

    def make():
        made.append(1)
        return {"x": np.arange(5)}

    cached("key", make)
    (file,) = tmp_path.rglob("x.npy")
    file.write_bytes(b"")
    assert cached("key", make)["x"].tolist() == [0, 1, 2, 3, 4]
    assert len(made) == 2
    assert cached("key", make)["x"].tolist() == [0, 1, 2, 3, 4]
    assert len(made) == 2
