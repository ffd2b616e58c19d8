"""A Ray cluster on Kubernetes by the KubeRay operator, all through kubectl.

``up`` records context and namespace, and the other words go there, whatever context kubectl has by then.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

from sarx.cluster.place import Kind, Site, shown
from sarx.cluster.tokens import make_token
from sarx.config.errors import UserError

KEYS = ("CONTEXT", "NAMESPACE", "SARX_STORAGE")
FILES = ("place.env", "storage.yaml", "network.yaml", "raycluster.yaml")
CLUSTER = "sarx"
SECRET = "sarx-token"
WAIT = "900s"


def kubectl(site: Site, *words: str) -> list[str]:
    """Return a command of kubectl in the context and namespace of the cluster that was started from here.

    Raises:
        UserError: If there is none.
    """
    if not record_of(site).exists():
        raise UserError(
            "no cluster is up from this checkout; start one with: just up kuberay", where="kuberay"
        )
    return kubectl_in(json.loads(record_of(site).read_text(encoding="utf-8")), *words)


def kubectl_in(target: dict[str, str], *words: str) -> list[str]:
    """Return a command of kubectl in a context and namespace."""
    chosen = [f"--context={target['context']}"] if target["context"] else []
    return ["kubectl", *chosen, f"--namespace={target['namespace']}", *words]


def record_of(site: Site) -> Path:
    """Return the file that says where the cluster of this checkout is."""
    return site.state / "cluster.json"


def target_of(site: Site) -> dict[str, str]:
    """Return context and namespace of the settings; an empty context is the current one.

    It stays empty where kubectl has none, as in a pod.
    """
    context = site.settings["CONTEXT"]
    if not context:
        with contextlib.suppress(UserError):
            context = ask(["kubectl", "config", "current-context"])
    return {"context": context, "namespace": site.settings["NAMESPACE"]}


def kinds(site: Site) -> list[Kind]:
    """Return the kinds of nodes that are started on demand, as KubeRay tells Ray of them.

    Raises:
        UserError: If a group of workers has no limit of CPUs, without which nobody knows what fits on it.
    """
    path = site.folder / "raycluster.yaml"
    return kinds_of(yaml.safe_load(path.read_text(encoding="utf-8"))["spec"], shown(path))


def kinds_of(spec: dict[str, Any], where: str) -> list[Kind]:
    """Return the kinds of nodes of the specification of a RayCluster."""
    found: list[Kind] = []
    for group in spec["workerGroupSpecs"]:
        resources = group["template"]["spec"]["containers"][0].get("resources", {})
        limits = {**resources.get("requests", {}), **resources.get("limits", {})}
        if "cpu" not in limits:
            raise UserError(
                f'say how many CPUs a pod of group {group["groupName"]} has: limits: {{cpu: "8"}}',
                where=where,
            )
        kind = {"nodes": group["maxReplicas"], "CPU": cores(str(limits["cpu"]))}
        gpus = sum(int(amount) for name, amount in limits.items() if name.endswith("/gpu"))
        found.append(kind | ({"GPU": gpus} if gpus else {}))
    return found


def cores(quantity: str) -> int:
    """Return a quantity of CPUs as KubeRay tells Ray of it: rounded up."""
    milli = quantity.removesuffix("m")
    return math.ceil(float(milli) / 1000) if milli != quantity else math.ceil(float(quantity))


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
    claim(site)
    make_token(site.token)
    do(kubectl(site, "apply", "-f", "-"), secret(site.token.read_text(encoding="utf-8")))
    for file in FILES[1:]:
        do(kubectl(site, "apply", "-f", str(site.folder / file)))
    do(kubectl(site, "wait", "--for=condition=HeadPodReady", f"raycluster/{CLUSTER}", f"--timeout={WAIT}"))


def claim(site: Site) -> None:
    """Record where the cluster is going to be, unless another one is there.

    Raises:
        UserError: If the namespace has a cluster that was not started from here, or ours is elsewhere.
    """
    target, path = target_of(site), record_of(site)
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there != target:
            raise UserError(
                f"the cluster of this checkout is in namespace {there['namespace']} of {there['context']}; "
                "first: just down kuberay",
                where="just up kuberay",
            )
        return
    found = ask(kubectl_in(target, "get", f"raycluster/{CLUSTER}", "--ignore-not-found", "--output=name"))
    if found:
        raise UserError(
            f"namespace {target['namespace']} has a cluster {CLUSTER} not started from this checkout; "
            "take a namespace of your own",
            where=shown(site.folder / "place.env"),
            key="NAMESPACE",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(target), encoding="utf-8")


def ask(command: list[str]) -> str:
    """Return what kubectl prints.

    Raises:
        UserError: With the last line of what it said, if it fails; those before are its client's log.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UserError(said, where="kubectl")
    return done.stdout.strip()


def do(command: list[str], given: str | None = None) -> None:
    """Run kubectl; the token goes through standard input and is on no command line.

    Raises:
        UserError: If it fails.
    """
    if code := subprocess.run(command, input=given, text=True, check=False).returncode:
        raise UserError(f"kubectl ended with {code}; what it said stands above", where="just up kuberay")


def down(site: Site) -> int:
    """Delete cluster, network policy and token; the volume with the results stays."""
    if not record_of(site).exists():
        print("no cluster of ours is up")
        return 0
    named, studies = [f"raycluster/{CLUSTER}"], running_studies(site)
    if studies:
        print(f"token and network policy stay for {' '.join(studies)}; when over, again: just down kuberay")
    else:
        named += ["networkpolicy/sarx", f"secret/{SECRET}"]
    code = subprocess.run(
        kubectl(site, "delete", "--ignore-not-found", "--wait", *named), check=False
    ).returncode
    if code == 0 and not studies:
        ends_it = shlex.join(kubectl(site, "delete", "-f", "clusters/kuberay/storage.yaml"))
        print(f"the volume with the results stays, for the next just up kuberay; this deletes it: {ends_it}")
        record_of(site).unlink()
    return code


def running_studies(site: Site) -> list[str]:
    """Return the RayJobs of the namespace that are not over: they present the token, too."""
    state = '{range .items[*]}{.metadata.name}={.status.jobDeploymentStatus}{"\\n"}{end}'
    found = ask(kubectl(site, "get", "rayjob", f"--output=jsonpath={state}"))
    pairs = (line.partition("=") for line in found.splitlines())
    return [f"rayjob/{name}" for name, _, status in pairs if status not in ("Complete", "Failed")]


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
    name = ask(kubectl(site, "get", "pods", chosen, "--output=jsonpath={.items[*].metadata.name}"))
    if not name:
        raise UserError("no head is up; start one with: just up kuberay", where="kuberay")
    return name.split()[0]
