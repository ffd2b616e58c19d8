"""Checkpoints as a host meets them: damaged, of another shape, ahead of the ledger, on a full disk."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sarx.cluster.trial import TrialHost, encode_segment
from sarx.config.compose import compose
from sarx.config.errors import UserError
from sarx.config.schema import as_dict
from sarx.search.claims import Segment
from sarx.study.schema import Resources
from sarx.training import checkpoint
from sarx.training.loop import train

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config():
    return compose(
        {
            "model": "fcn_test_efficientnet",
            "data.num_train": 32,
            "training.steps": 8,
            "training.eval_every": 2,
            "training.batch_size": 4,
        }
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def numbers(result):
    return {key: value for key, value in result.metrics.items() if not key.startswith("time/")}


@pytest.fixture(scope="module")
def whole(config):
    return [numbers(result) for result in train(config)]


@pytest.fixture(scope="module")
def three_epochs(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three") / "attempt-1"
    generator = train(config, folder=folder)
    for _ in range(3):
        next(generator)
    generator.close()
    return folder


@pytest.fixture
def interrupted(three_epochs, tmp_path):
    """The folder of an attempt that ended after epoch 3 of 4, with checkpoints of epochs 2 and 3."""
    return shutil.copytree(three_epochs, tmp_path / "attempt-1")


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def without_checksum(path):
    path.with_suffix(".sha256").unlink()


def unreadable(path):
    path.unlink()
    path.mkdir()  # a test may run as root, who reads everything


def replaced(path, change):
    """Put another state in place, with a checksum that fits it."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())


def other_width(path):
    replaced(path, lambda state: state["module"].update({next(iter(state["module"])): torch.zeros(3)}))


def other_layer(path):
    replaced(path, lambda state: state["module"].update(extra=torch.zeros(3)))


def other_optimizer(path):
    def change(state):
        state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1)

    replaced(path, change)


def no_optimizer(path):
    replaced(path, lambda state: state.pop("optimizer"))


def too_late(path):
    replaced(path, lambda state: state.update(epoch=99))


DAMAGE = {
    flip: "is damaged: its checksum does not match",
    cut: "is damaged: its checksum does not match",
    without_checksum: "is damaged: epoch-00003.sha256 cannot be read (No such file or directory)",
    unreadable: "is damaged: epoch-00003.pt cannot be read (Is a directory)",
    other_width: "has another shape",
    other_layer: "does not fit: extra is missing here or there",
    other_optimizer: "does not fit: the optimizer's state of parameter 0 has another shape",
    no_optimizer: "does not fit: it has no optimizer",
    too_late: "does not fit: it is of epoch 99 and the training has 4",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_checkpoint_that_cannot_be_used_is_named_and_the_one_before_it_is_used(
    damage, config, interrupted, whole, capsys
):
    damage(interrupted / "epoch-00003.pt")
    rest = list(train(config, folder=interrupted.parent / "attempt-2", resume=[interrupted]))
    assert [result.epoch for result in rest] == [3, 4]
    assert [numbers(result) for result in rest] == whole[2:]
    said = capsys.readouterr().out
    assert DAMAGE[damage] in said
    assert f"checkpoint {interrupted}/epoch-00003.pt" in said
    assert "set aside as epoch-00003.bad" in said
    assert (interrupted / "epoch-00003.bad").exists()
    assert not (interrupted / "epoch-00003.pt").exists()


@pytest.mark.parametrize("damage", [flip, other_width, no_optimizer], ids=lambda damage: damage.__name__)
def test_with_no_usable_checkpoint_a_trial_starts_from_its_beginning(damage, config, interrupted, whole):
    for path in interrupted.glob("epoch-*.pt"):
        damage(path)
    again = list(train(config, folder=interrupted.parent / "attempt-2", resume=[interrupted]))
    assert [numbers(result) for result in again] == whole  # nothing of the misfit was loaded


def test_a_checkpoint_that_cannot_be_renamed_either_is_left_and_named(
    config, interrupted, capsys, monkeypatch
):
    def refuse(self, target):
        raise OSError(30, "Read-only file system")

    flip(interrupted / "epoch-00003.pt")
    monkeypatch.setattr(Path, "replace", refuse)
    assert checkpoint.newest([interrupted])["epoch"] == 2
    assert "left where it is (Read-only file system)" in capsys.readouterr().out


def epochs_of(results):
    return [result.epoch for result in results]


@pytest.mark.parametrize(
    ("recorded", "given"),
    [
        (3, [4]),  # what the ledger has is what the checkpoint has
        (2, [3, 4]),  # the worker had saved epoch 3 before it was recorded
        (1, [2, 3, 4]),  # the driver's machine lost two epochs of the ledger
        (0, [2, 3, 4]),  # ... or three: two checkpoints are kept
        (4, [4]),
    ],
)
def test_results_that_were_saved_but_not_recorded_come_again_untrained(
    recorded, given, config, interrupted, whole, tmp_path, monkeypatch
):
    monkeypatch.setenv("SARX_WITNESS", str(tmp_path / "witness"))
    rest = list(train(config, resume=[interrupted], name="x", replay_from=recorded + 1))
    assert epochs_of(rest) == given
    assert [numbers(result) for result in rest] == whole[given[0] - 1 :]
    assert all(result.duration_s > 0 and result.step == 2 * result.epoch for result in rest)
    trained = [int(line.split()[1]) for line in (tmp_path / "witness").read_text().splitlines()]
    assert trained == [4]


def test_the_result_before_the_newest_may_lie_in_the_attempt_before(config, interrupted, whole, tmp_path):
    (interrupted / "epoch-00003.pt").unlink()
    again = train(config, folder=tmp_path / "attempt-2", resume=[tmp_path / "attempt-2", interrupted])
    assert next(again).epoch == 3
    again.close()
    rest = train(config, resume=[tmp_path / "attempt-2", interrupted], replay_from=2)
    found = list(itertools.islice(rest, 2))
    rest.close()
    assert epochs_of(found) == [2, 3]
    assert [numbers(result) for result in found] == whole[1:3]


def test_a_host_reports_a_saved_segment_without_training_it_again(config, tmp_path, monkeypatch, whole):
    """Its predecessor saved the epoch at the rung and died before the driver had recorded it."""
    monkeypatch.setenv("SARX_WITNESS", str(tmp_path / "witness"))
    one = Segment("0" * 16, 1, "search", as_dict(config), "x search 0", 0, until=2)
    host = TrialHost(config=encode_segment(one, tmp_path, Resources()))
    first = [host.step(), host.step()]
    assert [result["done"] for result in first] == [False, True]
    two = Segment("0" * 16, 2, "search", as_dict(config), "x search 0", 0, until=2, start=1)
    host.reset_config(encode_segment(two, tmp_path, Resources()))
    again = host.step()
    assert again["result"] == first[1]["result"]
    assert again["done"]
    three = Segment("0" * 16, 3, "search", as_dict(config), "x search 0", 0, until=4, start=2)
    host.reset_config(encode_segment(three, tmp_path, Resources()))
    last = [host.step(), host.step()][-1]
    assert last["done"]
    assert len(last["images"]) > 0
    trained = [int(line.split()[1]) for line in (tmp_path / "witness").read_text().splitlines()]
    assert trained == [1, 2, 3, 4]


def test_checkpoints_of_forgotten_attempts_do_not_count(config, tmp_path):
    one = Segment("0" * 16, 1, "search", as_dict(config), "x search 0", 0, until=1)
    host = TrialHost(config=encode_segment(one, tmp_path, Resources()))
    host.step()
    two = Segment("0" * 16, 2, "search", as_dict(config), "x search 0", 0, until=1, since=2)
    host.reset_config(encode_segment(two, tmp_path, Resources()))
    host.step()
    assert "continues after" not in (tmp_path / "trials" / ("0" * 16) / "log.txt").read_text()


# ---------------------------------------------------------------- disks that cannot be written

SAVES = """
import resource, signal, sys, torch
from pathlib import Path
from sarx.config.errors import UserError
from sarx.training import checkpoint
folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"a": torch.zeros(10)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.save(folder, 2, {"a": torch.zeros(100_000)})
except UserError as error:
    print(error)
"""


def test_a_checkpoint_that_meets_a_limit_of_the_disk_leaves_those_before_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SAVES, str(tmp_path / "attempt-1")],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        check=True,
        timeout=100,
    )
    assert done.stdout == (
        f"{tmp_path}/attempt-1: no checkpoint can be written here (File too large); free space or make the "
        "folder writable\n"
    )
    assert sorted(path.name for path in (tmp_path / "attempt-1").iterdir()) == [
        "epoch-00001.pt",
        "epoch-00001.sha256",
    ]
    assert checkpoint.newest([tmp_path / "attempt-1"])["a"].shape == (10,)


def private_mount_works():
    return (
        subprocess.run(
            ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/tmp"],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


@pytest.mark.skipif(not private_mount_works(), reason="no private mounts here")
def test_a_full_disk_and_a_read_only_folder_are_named(tmp_path):
    code = SAVES.partition("signal.signal")[0] + (
        "import subprocess\n"
        "for what, size in (('full', 200_000), ('read-only', 10)):\n"
        "    if what == 'read-only':\n"
        "        subprocess.run(['mount', '-o', 'remount,ro', sys.argv[2]], check=True)\n"
        "    try:\n"
        "        checkpoint.save(folder, 2, {'a': torch.zeros(size)})\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    shell = (
        f'mount -t tmpfs -o size=100k none "{disk}" && exec "{sys.executable}" -c "$0" "{disk}/a" "{disk}"'
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", shell, code],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        check=True,
        timeout=100,
    )
    full, read_only = done.stdout.splitlines()
    assert full.startswith(f"{disk}/a: no checkpoint can be written here (No space left on device)")
    assert read_only.startswith(f"{disk}/a: no checkpoint can be written here (Read-only file system)")


def test_a_failed_write_names_the_folder_in_the_trials_log(config, tmp_path):
    one = Segment("0" * 16, 1, "search", as_dict(config), "x search 0", 0, until=2)
    trial = tmp_path / "trials" / ("0" * 16)
    trial.mkdir(parents=True)
    (trial / "attempt-1").write_text("in the way")
    host = TrialHost(config=encode_segment(one, tmp_path, Resources()))
    with pytest.raises(UserError, match="no checkpoint can be written here"):
        host.step()
    last = (trial / "log.txt").read_text().splitlines()[-1]
    assert last.startswith(
        f"attempt 1 failed: UserError: {trial}/attempt-1: no checkpoint can be written here"
    )
    two = Segment("0" * 16, 2, "search", as_dict(config), "x search 0", 0, until=2)
    host.reset_config(encode_segment(two, tmp_path, Resources()))
    assert not host.step()["done"]
