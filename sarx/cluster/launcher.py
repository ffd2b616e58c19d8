"""A Ray cluster in a cloud by Ray's cluster launcher; ``cluster.yaml`` says what nodes it has."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from sarx.cluster.place import Site, make_token
from sarx.config.errors import UserError

CLUSTER = "cluster.yaml"
KEYS = ("SARX_STORAGE",)
FILES = (CLUSTER, "place.env")
LIBRARIES = {"aws": "boto3", "gcp": "googleapiclient"}


def ray(*words: str) -> list[str]:
    """Return a command of Ray's command line."""
    return [str(Path(sys.executable).with_name("ray")), *words]


def check_library(site: Site) -> None:
    """Refuse to go on without the library of the cloud.

    Raises:
        UserError: Naming what to install.
    """
    if find_spec(LIBRARIES[site.name]) is None:
        raise UserError(
            f"Python's {LIBRARIES[site.name]} is not here; "
            ".venv/bin/python -m pip install --no-deps -r clusters/launcher.txt",
            where=f"just up {site.name}",
        )


def up(site: Site, arguments: list[str]) -> None:
    """Start the head, or look after one that runs; workers come when they are asked for.

    Raises:
        UserError: If the launcher fails.
    """
    check_library(site)
    _ = site.storage
    make_token(site.token)
    command = up_command(site, arguments)
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(
            f"the launcher ended with {code}; what it said stands above", where=f"just up {site.name}"
        )


def up_command(site: Site, arguments: list[str]) -> list[str]:
    """Return what starts the head; a Ray that runs there is not started anew."""
    fixed = ("--yes", "--no-restart", "--disable-usage-stats")
    return ray("up", *fixed, *arguments, str(site.folder / CLUSTER))


def down_command(site: Site) -> list[str]:
    """Return what ends the cluster."""
    return ray("down", "--yes", str(site.folder / CLUSTER))


def down(site: Site) -> int:
    """End the head and all workers of the cluster that ``cluster.yaml`` names."""
    check_library(site)
    return subprocess.run(down_command(site), check=False).returncode


def shell(site: Site, command: str) -> list[str]:
    """Return what runs a shell command on the head, in its container."""
    return ray("exec", str(site.folder / CLUSTER), command)


def forward(site: Site, local: int, remote: int) -> list[str]:
    """Return what keeps a tunnel open from a loopback port here to one of the head."""
    return ray("dashboard", f"--port={local}", f"--remote-port={remote}", str(site.folder / CLUSTER))
