"""The places where a cluster can be had, by name."""

from __future__ import annotations

import json

from sarx.cluster import bare_metal, kuberay, launcher, local, slurm
from sarx.cluster.place import Place, Site
from sarx.config.errors import UserError


def local_up(_: Site, arguments: list[str]) -> None:
    """Start the cluster on this machine."""
    options = local.parser().parse_args(["up", *arguments])
    local.up(options.port, options.cpus)


def local_down(_: Site) -> int:
    """End the cluster on this machine."""
    local.down()
    return 0


def local_port(_: Site) -> int:
    """Return the port of the job server on this machine.

    Raises:
        UserError: If no cluster of ours is up.
    """
    if not local.RECORD.exists():
        raise UserError("no cluster is up; start one with: just up", where="local")
    return int(json.loads(local.RECORD.read_text(encoding="utf-8"))["ports"]["dashboard"])


LAUNCHED = Place(
    launcher.up,
    launcher.down,
    launcher.shell,
    launcher.forward,
    keys=launcher.KEYS,
    files=launcher.FILES,
    needs={"ssh": "Debian has it as openssh-client", "rsync": "Debian has it"},
    grows=launcher.kinds,
    is_up=lambda site: launcher.record_of(site).exists(),
)
"""A cloud for which Ray has a cluster launcher; the folder of the place says which."""

PLACES = {
    "local": Place(
        local_up,
        local_down,
        shell=lambda _, command: ["bash", "-c", command],
        forward=lambda _, __, ___: [],
        port=local_port,
        here=lambda _: True,
        own_token=False,
        uploads=False,
        is_up=lambda _: local.RECORD.exists(),
    ),
    "bare_metal": Place(
        bare_metal.up,
        bare_metal.down,
        bare_metal.shell,
        bare_metal.forward,
        keys=bare_metal.KEYS,
        files=("place.env", bare_metal.HOSTS),
        needs={"ssh": "Debian has it as openssh-client"},
        here=lambda site: "://" in site.storage or not bare_metal.record_of(site).exists(),
        is_up=lambda site: bare_metal.record_of(site).exists(),
    ),
    "slurm": Place(
        slurm.up,
        slurm.down,
        slurm.shell,
        slurm.forward,
        keys=slurm.KEYS,
        files=slurm.FILES,
        here=lambda site: "://" in site.storage or not site.settings["LOGIN_HOST"],
        own_token=False,
        uploads=False,
        batch=slurm.BATCH,
    ),
    "aws": LAUNCHED,
    "gcp": LAUNCHED,
    "kuberay": Place(
        kuberay.up,
        kuberay.down,
        kuberay.shell,
        kuberay.forward,
        keys=kuberay.KEYS,
        files=kuberay.FILES,
        needs={"kubectl": "see kubernetes.io, and install the KubeRay operator in the cluster"},
        grows=kuberay.kinds,
        is_up=lambda site: kuberay.record_of(site).exists(),
    ),
}
