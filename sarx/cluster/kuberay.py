"""A Ray cluster on Kubernetes by the KubeRay operator, all through kubectl."""

from __future__ import annotations

import json
import subprocess

from sarx.cluster.place import Site, make_token
from sarx.config.errors import UserError

KEYS = ("CONTEXT", "NAMESPACE", "SARX_STORAGE")
FILES = ("place.env", "storage.yaml", "network.yaml", "raycluster.yaml")
CLUSTER = "sarx"
SECRET = "sarx-token"
WAIT = "900s"


def kubectl(site: Site, *words: str) -> list[str]:
    """Return a command of kubectl in the context and namespace of the place."""
    context = site.settings["CONTEXT"]
    chosen = [f"--context={context}"] if context else []
    return ["kubectl", *chosen, f"--namespace={site.settings['NAMESPACE']}", *words]


def secret(token: str) -> str:
    """Return the manifest of the token's secret; KubeRay looks for the key auth_token."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "type": "Opaque",
            "stringData": {"auth_token": token},
        }
    )


def up(site: Site, arguments: list[str]) -> None:
    """Apply the files of the place and wait for the head; workers start when they are asked for.

    Raises:
        UserError: If kubectl fails.
    """
    if arguments:
        raise UserError(
            f"unknown: {' '.join(arguments)}; raycluster.yaml says what there is", where="just up kuberay"
        )
    _ = site.storage
    make_token(site.token)
    do(kubectl(site, "apply", "-f", "-"), secret(site.token.read_text(encoding="utf-8")))
    for file in FILES[1:]:
        do(kubectl(site, "apply", "-f", str(site.folder / file)))
    do(kubectl(site, "wait", "--for=condition=HeadPodReady", f"raycluster/{CLUSTER}", f"--timeout={WAIT}"))


def do(command: list[str], given: str | None = None) -> None:
    """Run kubectl; the token goes through standard input and is on no command line.

    Raises:
        UserError: If it fails.
    """
    if code := subprocess.run(command, input=given, text=True, check=False).returncode:
        raise UserError(f"kubectl ended with {code}; what it said stands above", where="just up kuberay")


def down(site: Site) -> int:
    """Delete cluster, network policy and token; the volume with the results stays."""
    kinds = [f"raycluster/{CLUSTER}", "networkpolicy/sarx", f"secret/{SECRET}"]
    code = subprocess.run(
        kubectl(site, "delete", "--ignore-not-found", "--wait", *kinds), check=False
    ).returncode
    if code == 0:
        print(
            "the volume with the results stays: kubectl delete -f clusters/kuberay/storage.yaml ends it too"
        )
    return code


def shell(site: Site, command: str) -> list[str]:
    """Return what runs a shell command in the head's container."""
    return kubectl(site, "exec", "-i", head_pod(site), "-c", "ray-head", "--", "bash", "-c", command)


def forward(site: Site, local: int, remote: int) -> list[str]:
    """Return what keeps a tunnel open from a loopback port here to one of the head's pod."""
    return kubectl(site, "port-forward", "--address=127.0.0.1", "pod/" + head_pod(site), f"{local}:{remote}")


def head_pod(site: Site) -> str:
    """Return the name of the head's pod; a service forwards only the ports that it names.

    Raises:
        UserError: If there is none.
    """
    chosen = f"--selector=ray.io/cluster={CLUSTER},ray.io/node-type=head"
    done = subprocess.run(
        kubectl(site, "get", "pods", chosen, "--output=jsonpath={.items[0].metadata.name}"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not done.stdout.strip():
        said = " ".join(done.stderr.split())
        raise UserError(f"no head is up ({said}); start one with: just up kuberay", where="kuberay")
    return done.stdout.strip()
