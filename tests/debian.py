"""Programs of Debian that slow tests need: installed where that is possible, else the test is skipped."""

import os
import shutil
import subprocess

import pytest

MINUTES = 15


def needed(package: str, command: str) -> str:
    """Return the path of a command, from Debian's package (or several, separated by blanks) if it is missing.

    Where nobody may install it the test is skipped with the reason.
    """
    found = shutil.which(command)
    if found:
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        pytest.skip(
            f"{command} is missing; as root on Debian it would be installed (apt-get install {package})"
        )
    nice = [program, "-n", "19"] if (program := shutil.which("nice")) else []
    wait = ["-o", f"DPkg::Lock::Timeout={60 * MINUTES}"]
    install = [*nice, apt, *wait, "install", "-y", "--no-install-recommends", *package.split()]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (install, [*nice, apt, *wait, "update"], install):  # lists of packages may be old or absent
        try:
            done = subprocess.run(step, env=environment, capture_output=True, text=True, timeout=60 * MINUTES)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{' '.join(step)} took longer than {MINUTES} minutes")
        if done.returncode == 0 and (found := shutil.which(command)):
            return found
    last = [*done.stderr.strip().splitlines(), "no message"][0]
    pytest.skip(f"{command} is missing and apt-get install {package} failed: {last}")
