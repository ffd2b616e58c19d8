"""The command that says where studies stand: quick, light, and one line for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sarx.status import main
from sarx.study.ledger import Ledger, read_events

OPENING = {
    "question": "Does it help?",
    "arms": [{"arm": "sar", "level": "", "parameters": []}],
    "trials_per_arm": 1,
    "seeds": 1,
    "file": "max_failures: 0\n",
    "command": "python -m sarx.tune s.yaml",
}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Return a storage with one study, of which a trial failed for good."""
    folder = tmp_path / "small" / "ledger"
    folder.mkdir(parents=True)
    with Ledger(folder) as ledger:
        ledger.append("study_opened", payload=json.dumps(OPENING))
        ledger.append("proposed", arm="sar", level="", phase="search", index=0, trial_id="abc")
        ledger.append("trial_started", trial_id="abc", attempt=1)
        payload = json.dumps({"reason": "boom", "kind": "crashed"})
        ledger.append("failed", trial_id="abc", attempt=1, payload=payload)
    return tmp_path


def test_it_is_light_and_its_help_is_quick(storage: Path) -> None:
    code = (
        "import sys, time; from sarx.status import main, parser; parser().format_help(); "
        "print(time.process_time()); "
        f"assert main(['small', '--storage', {str(storage)!r}]) == 0; "
        "print({'torch', 'ray', 'optuna', 'hydra', 'numpy', 'polars'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert float(lines[0]) < 0.3
    assert lines[-1] == "set()"


def test_every_study_and_one_study(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--storage", str(storage)]) == 0
    assert capsys.readouterr().out.startswith("small  stopped  1 of 1 trials decided, last event ")
    assert main(["small", "--storage", str(storage)]) == 0
    out = capsys.readouterr().out
    assert "sar search 0  abc  crashed: boom" in out
    assert f"next: python -m sarx.status --storage {storage} small --retry-failed" in out
    assert main(["--storage", str(storage / "nothing")]) == 0
    assert capsys.readouterr().out == f"no study in {storage / 'nothing'} yet\n"


def test_retry_and_forget(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--storage", str(storage)]
    assert main(["--retry-failed", *common]) == 0
    out = capsys.readouterr().out
    assert out.startswith("the study that changed last: small\nthe next run continues these")
    assert out.endswith("run it: python -m sarx.tune s.yaml\n")
    assert main(["small", "--forget", "ab", "--reason", "a test", *common]) == 0
    assert "abc (sar search 0; waiting) does not count any more" in capsys.readouterr().out
    last = read_events(storage / "small" / "ledger")[-2:]
    assert [event["event"] for event in last] == ["retried", "forgotten"]
    assert json.loads(last[1]["payload"]) == {"reason": "a test"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smal"], "error: no study is called 'smal' in"),
        (["small", "--forget", "x"], "error: x: no trial of this study is called so; known: abc"),
        (["--retry-failed", "gone"], "error: no study is called 'gone' in"),
    ],
)
def test_mistakes(storage: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main([*arguments, "--storage", str(storage)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(said)
    assert len(errors.splitlines()) == 1


def test_a_driver_is_not_disturbed(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger(storage / "small" / "ledger"):
        assert main(["--retry-failed", "small", "--storage", str(storage)]) == 2
    assert "error: small: is running (pid " in capsys.readouterr().err
