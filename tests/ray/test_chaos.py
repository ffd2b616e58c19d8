"""``just chaos`` as a test: kills at random moments, damaged files, full disks; nothing may be lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.damage import IN_TURN

CHECKOUT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def chaos(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_kills_lose_nothing():
    """Fewer kills and trials than ``just chaos`` has, for time."""
    done = chaos("--only", "kills", "--kills", "4", "--trials", "24")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("BAR") == done.stdout.count("pass") == 5


@pytest.mark.parametrize("case", IN_TURN)
def test_damage_is_named_and_loses_nothing(case):
    done = chaos("--case", case)
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"pass  {case}: ")
