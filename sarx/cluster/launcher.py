"""A Ray cluster in a cloud by Ray's cluster launcher; ``cluster.yaml`` says what nodes it has.

``up`` gives the cluster a name of its own and records it, so that two people, or two checkouts of one, do not
mean the same cluster; the other words know no cluster but that one. They go by the file as it was then.
"""

from __future__ import annotations

import getpass
import re
import secrets
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from sarx.cluster.place import Kind, Site, shown
from sarx.cluster.tokens import make_token
from sarx.config.errors import UserError

CLUSTER = "cluster.yaml"
KEYS = ("SARX_STORAGE",)
FILES = (CLUSTER, "place.env")
LIBRARIES = {"aws": "boto3", "gcp": "googleapiclient"}
ABSENT = re.compile(r"Head node of cluster .* not found!")
"""What Ray's launcher says, and exits with 0."""
NAME = re.compile(r"[a-z][a-z0-9-]{0,15}")
"""What the file may call its cluster: with our additions it must fit into a label of any cloud."""


def ray(site: Site, word: str, *words: str) -> list[str]:
    """Return a command of Ray's command line on the cluster of this checkout.

    Raises:
        UserError: If none was started from here.
    """
    name = f"--cluster-name={recorded(site)}"
    return [str(Path(sys.executable).with_name("ray")), word, name, *words]


def record_of(site: Site) -> Path:
    """Return the file with the name of the cluster that was started from here."""
    return site.state / "cluster"


def recorded(site: Site) -> str:
    """Return the name of the cluster that was started from here.

    Raises:
        UserError: If there is none.
    """
    try:
        return record_of(site).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(
            f"no cluster is up from this checkout; start one with: just up {site.name}", where=site.name
        ) from None


def kept_file(site: Site) -> Path:
    """Return the copy of ``cluster.yaml`` from which the cluster was started, else the file."""
    kept = site.state / CLUSTER
    return kept if kept.exists() else site.folder / CLUSTER


def keep_file(site: Site) -> None:
    """Keep the file from which the cluster is started, for the words to come.

    Raises:
        UserError: If a cluster was started from here somewhere else.
    """
    now, before = read(site), yaml.safe_load(kept_file(site).read_text(encoding="utf-8"))
    if now["provider"] != before["provider"]:
        raise UserError(
            f"is not that of {recorded(site)}, which was started from here; first: just down {site.name}",
            where=shown(site.folder / CLUSTER),
            key="provider",
        )
    shutil.copyfile(site.folder / CLUSTER, site.state / CLUSTER)


def record_name(site: Site) -> None:
    """Record the name of the cluster to be: that of the file, the user's, and four random digits."""
    path = record_of(site)
    if path.exists():
        return
    user = re.sub(r"[^a-z0-9]+", "-", getpass.getuser().lower()).strip("-")[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("-".join(filter(None, (read(site)["cluster_name"], user, secrets.token_hex(2)))) + "\n")


def read(site: Site) -> dict[str, Any]:
    """Return what ``cluster.yaml`` says.

    Raises:
        UserError: If it is no mapping with a short name, or a kind of node does not say what it has.
    """
    path = site.folder / CLUSTER
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read: {' '.join(str(error).split())}", where=shown(path)) from None
    if not isinstance(found, dict) or not NAME.fullmatch(str(found.get("cluster_name"))):
        raise UserError(
            "must be up to 16 of a-z, 0-9 and -, the first a letter", where=shown(path), key="cluster_name"
        )
    return found


def kinds(site: Site) -> list[Kind]:
    """Return the kinds of nodes that are started on demand.

    Raises:
        UserError: If one does not say its resources, without which nobody knows what fits on it.
    """
    whole = read(site)
    found: list[Kind] = []
    for name, kind in whole.get("available_node_types", {}).items():
        most = min(kind.get("max_workers", whole["max_workers"]), whole["max_workers"])
        if name == whole["head_node_type"] or not most:
            continue
        resources = kind.get("resources") or {}
        if not isinstance(resources.get("CPU"), int):
            raise UserError(
                "say how many CPUs and GPUs it has: {CPU: 8, GPU: 1}",
                where=shown(site.folder / CLUSTER),
                key=f"available_node_types.{name}.resources",
            )
        found.append({"nodes": most, **resources})
    return found


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
    record_name(site)
    keep_file(site)
    command = up_command(site, arguments)
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(
            f"the launcher ended with {code}; what it said stands above; what is up ends with: "
            f"just down {site.name}",
            where=f"just up {site.name}",
        )
    print(f"the cluster is called {recorded(site)}")


def up_command(site: Site, arguments: list[str]) -> list[str]:
    """Return what starts the head; a Ray that runs there is not started anew."""
    fixed = ("--yes", "--no-restart", "--disable-usage-stats")
    return ray(site, "up", *fixed, *arguments, str(site.folder / CLUSTER))


def down_command(site: Site) -> list[str]:
    """Return what ends the cluster."""
    return ray(site, "down", "--yes", str(kept_file(site)))


def down(site: Site) -> int:
    """End the head and all workers of the cluster that was started from here.

    It stays recorded where the launcher finds no head: with other credentials it looks elsewhere.
    """
    if not record_of(site).exists():
        print("no cluster of ours is up")
        return 0
    check_library(site)
    name, absent = recorded(site), False
    with subprocess.Popen(
        down_command(site), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            absent |= ABSENT.search(line) is not None
    if absent:
        print(
            f"nothing was ended: with the credentials that are set now there is no head of {name}; use those "
            f"of just up {site.name}, or, if the cluster is gone, delete {shown(record_of(site))}"
        )
        return 1
    if process.returncode == 0:
        record_of(site).unlink()
        (site.state / CLUSTER).unlink(missing_ok=True)
    return process.returncode


def shell(site: Site, command: str) -> list[str]:
    """Return what runs a shell command on the head, in its container."""
    return ray(site, "exec", str(kept_file(site)), command)


def forward(site: Site, local: int, remote: int) -> list[str]:
    """Return what keeps a tunnel open from a loopback port here to one of the head."""
    return ray(site, "dashboard", f"--port={local}", f"--remote-port={remote}", str(kept_file(site)))
