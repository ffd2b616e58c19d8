"""Where a study ran: the state of the checkout whatever git does, the machine, and never the environment."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sarx.config.schema import TrainConfig, as_dict, build
from sarx.study import provenance as module
from sarx.study.ledger import Ledger
from sarx.study.ledger_schema import OPENED_KEYS
from sarx.study.opening import open_study
from sarx.study.provenance import git_state, gpus, provenance, trial_provenance, write_config
from sarx.study.source import read_source


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with two tracked files, and nobody's own git configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "code.py").write_text("old = 1\n")
    (folder / ".gitignore").write_text("ignored*\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose programs are found before all others."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_clean_checkout_has_a_commit_and_no_file(checkout: Path, tmp_path: Path) -> None:
    state = git_state(checkout, tmp_path / "provenance")
    assert state == {
        "commit": git(checkout, "rev-parse", "HEAD"),
        "dirty": False,
        "diff_sha256": None,
        "diff": None,
        "reason": None,
    }
    assert not (tmp_path / "provenance").exists()


def test_a_dirty_checkout_keeps_changes_of_tracked_files_and_names_of_others(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout / "code.py").write_text("new = 2\n")
    (checkout / "untracked.py").write_text("secret = 3\n")
    (checkout / "ignored.env").write_text("TOKEN=4\n")
    state = git_state(checkout, tmp_path / "provenance")
    (patch,) = (tmp_path / "provenance").iterdir()
    raw = patch.read_bytes()
    assert state["dirty"] is True
    assert state["reason"] is None
    assert state["diff_sha256"] == hashlib.sha256(raw).hexdigest()
    assert state["diff"] == f"provenance/{patch.name}" == f"provenance/diff-{state['diff_sha256'][:8]}.patch"
    text = raw.decode()
    assert "-old = 1\n+new = 2\n" in text
    assert "# untracked: untracked.py\n" in text
    assert "secret" not in text
    assert "ignored.env" not in text
    git(checkout, "checkout", "--quiet", "code.py")
    git(checkout, "apply", str(patch))  # the comments do not make it another format
    assert (checkout / "code.py").read_text() == "new = 2\n"


def test_a_large_difference_is_cut_and_says_so(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "code.py").write_text("new = 2\n" * 1000)
    whole = git_state(checkout, tmp_path / "whole")["diff_sha256"]
    monkeypatch.setattr(module, "MAX_DIFF", 500)
    state = git_state(checkout, tmp_path / "cut")
    assert state["diff_sha256"] == whole
    assert "cut after 500 bytes" in state["reason"]
    raw = (tmp_path / state["diff"]).read_bytes()
    assert 500 < len(raw) < 600
    assert raw.endswith(b"# cut here, after 500 bytes\n")


def test_a_repository_cannot_make_git_run_anything(checkout: Path, tools: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    program(tools / "evil", f"touch {marker}")
    for key in ("diff.external", "core.fsmonitor", "core.pager", "diff.x.textconv", "diff.x.command"):
        git(checkout, "config", key, str(tools / "evil"))
    (checkout / ".git" / "info" / "attributes").write_text("*.py diff=x\n")
    (checkout / "code.py").write_text("new = 2\n")
    state = git_state(checkout, tmp_path / "provenance")
    assert state["dirty"] is True
    assert "+new = 2" in (tmp_path / state["diff"]).read_text()
    assert not marker.exists()


def test_git_of_the_caller_does_not_lead_elsewhere(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert git_state(checkout)["commit"] == commit


def test_no_repository(tmp_path: Path) -> None:
    state = git_state(tmp_path)
    assert state.pop("reason").startswith("git rev-parse: fatal: not a git repository")
    assert set(state.values()) == {None}


def test_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert git_state(tmp_path)["reason"].startswith("git rev-parse: fatal:")


def test_a_package_installed_within_another_repository(checkout: Path) -> None:
    inside = checkout / "ignored-venv" / "site-packages"
    inside.mkdir(parents=True)
    state = git_state(inside)
    assert state["commit"] is None
    assert state["reason"] == f"the repository around {inside} does not track it"


def test_no_git(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(checkout)["reason"] == "git is not installed"
    assert git_state(tmp_path / "gone")["reason"] == f"no folder {tmp_path / 'gone'}"


def test_slow_and_broken_git(checkout: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    program(tools / "git", "exec sleep 60")
    started = time.monotonic()
    assert git_state(checkout)["reason"] == "git took longer than 0.3 s"
    assert time.monotonic() - started < 10
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    program(tools / "git", "kill -9 $$")
    assert git_state(checkout)["reason"] == "git rev-parse: exit code -9"


def test_a_folder_that_cannot_be_written_is_no_error(checkout: Path, tmp_path: Path) -> None:
    (checkout / "code.py").write_text("new = 2\n")
    (tmp_path / "file").write_text("")
    state = git_state(checkout, tmp_path / "file" / "provenance")
    assert state["diff"] is None
    assert state["diff_sha256"] is not None
    assert state["reason"].startswith("the difference was not written")


def test_gpus_are_named_without_serial_numbers(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tools / "nvidia-smi", "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-12-34)'; echo noise")
    assert gpus() == ["GPU 0: NVIDIA H100 80GB HBM3"]
    program(tools / "nvidia-smi", "echo 'GPU 0: x'; exit 9")
    assert gpus() == []
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    program(tools / "nvidia-smi", "exec sleep 60")
    assert gpus() == []


def test_the_environment_is_not_told(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "hunter2-hunter2")
    told = json.dumps([provenance(checkout), trial_provenance()])
    assert "hunter2" not in told
    assert "MY_API_TOKEN" not in told


def test_what_is_told(checkout: Path) -> None:
    found = provenance(checkout)
    assert set(found) == {"git", "host", "devices", "os", "python", "started", "command"}
    assert found["devices"]["cpus"] >= 1
    assert found["devices"]["memory_gib"] > 0
    assert all(f"{key}" in OPENED_KEYS["provenance"] for key in (*found, *found["git"], *found["devices"]))
    trial = trial_provenance()
    assert set(trial) == {"host", "pid", "devices", "versions"}
    assert trial["pid"] == os.getpid()
    assert trial["devices"][0]
    assert len(trial["versions"]) == 16


def test_a_trial_does_not_import_torch_for_it() -> None:
    code = (
        "import sys; from sarx.study.provenance import trial_provenance; trial_provenance(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_start_of_a_study_records_it(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    with Ledger(tmp_path / "ledger") as ledger:
        open_study(ledger, {"study": "s", "command": "c"}, tmp_path / "study.lock")
        payload = json.loads(ledger.events[0]["payload"])
    assert set(payload["provenance"]["git"]) == {"commit", "dirty", "diff_sha256", "diff", "reason"}
    assert "provenance" not in json.loads((tmp_path / "study.lock").read_text())


def test_the_options_of_a_trial_are_read_back_as_they_were(tmp_path: Path) -> None:
    config = TrainConfig(seed=710415180480822419)
    config.optim.lr = 0.1 + 0.2
    config.optim.weight_decay = 1e-5
    folder = tmp_path / "my-study" / "trials" / "0123456789abcdef"
    path = write_config(folder, as_dict(config), "0123456789abcdef", config.seed)
    assert path == folder / "config.yaml"
    assert list(folder.iterdir()) == [path]
    head = path.read_text().splitlines()[:2]
    assert head == [
        "# study my-study, trial 0123456789abcdef, seed 710415180480822419",
        "# run it again: python -m sarx.train --trial my-study/0123456789abcdef",
    ]
    assert build(read_source(path).values) == config
