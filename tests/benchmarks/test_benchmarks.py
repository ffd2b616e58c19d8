"""The benchmarks start, and the short ones judge; what they measure is for ``just bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
SCRIPTS = ("engine.py", "resume.py", "aa.py", "scaling.py", "data.py")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_is_measured(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert f"just bench {Path(script).stem}" in done.stdout


def test_equal_arms_choose_the_same_winner(tmp_path):
    done = run("aa.py", "--studies", "4", "--folder", str(tmp_path))
    assert done.returncode in (0, 1), done.stderr  # of 4 studies one may be significant by chance
    assert "BAR aa_common_same_winner 1.000 >= 1 pass" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_small_ledger_is_resumed(tmp_path):
    done = run("resume.py", "--sizes", "20", "--rounds", "1", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].split()[0] == "20"
    assert not list(tmp_path.iterdir())
