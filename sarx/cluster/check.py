"""Look at a cluster before a study runs on it: ``python -m sarx.cluster.check STUDY.yaml``."""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarx.cluster.findings import FAILED, OK, WARNING, Finding, judge
from sarx.cluster.tokens import OWN

if TYPE_CHECKING:
    from sarx.study.schema import Resources
    from sarx.study.urls import Place

PATIENCE_S = 90.0
"""Seconds that a node has to answer; importing torch for the first time takes some of them."""
PINGS = 5
MIB, TIMES = 64, 3
NETWORK_S = 60.0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.cluster.check",
        description="See whether a cluster can run a study: versions, code, GPUs, storage, clocks, network.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE")
    parser.add_argument(
        "--storage", help="folder or s3:// URL of the results (default: SARX_STORAGE, else results/)"
    )
    parser.add_argument("--address", help="Ray cluster (default: RAY_ADDRESS, else a local one)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 0, 1 if something must be mended first, 2 for a user's mistake."""
    options = parser().parse_args(arguments)
    from sarx.config.errors import exit_code

    return exit_code(lambda: run(options), "stopped; nothing was started")


def run(options: argparse.Namespace) -> int:
    """Load the study, look, print."""
    from sarx.config import plugins
    from sarx.study.design import make_arms
    from sarx.study.load import load_study
    from sarx.study.storage import storage_place

    plugins.load(options.plugin)
    study, source = load_study(options.study, options.set)
    arms = make_arms(study, source)
    roots = sorted({root for arm in arms if (root := str(getattr(arm.config.data, "root", "")))})
    target = options.address or os.environ.get("RAY_ADDRESS")
    findings = findings_of(study.resources, target, storage_place(options.storage), roots)
    show(findings)
    bad = sum(finding.state == FAILED for finding in findings)
    print(f"{bad} to mend before the study can run" if bad else "the study can run here")
    if not bad:
        print(f"next: python -m sarx.tune {options.study}")
    return 1 if bad else 0


def findings_of(resources: Resources, target: str | None, root: Place, roots: Sequence[str]) -> list[Finding]:
    """Return what is the case on a cluster.

    Args:
        resources: What a trial occupies.
        target: Address of the cluster; None starts Ray on this machine for as long as it takes.
        root: Where the results lie.
        roots: Folders of data sets.
    """
    from sarx.cluster.resources import check_reachable, prepare_environment
    from sarx.config.errors import UserError

    prepare_environment()
    if target and (lacking := missing_token()):
        return [lacking]
    try:
        if target:
            check_reachable(target)
        with joined(target):
            return look_around(resources, root, roots)
    except UserError as error:
        return [Finding("cluster", FAILED, str(error), "see that it is up; see clusters/README.md")]


def missing_token() -> Finding | None:
    """Return the finding that a cluster will refuse us for want of a token; None if there is one."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return None
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or OWN).expanduser()
    if file.is_file() and file.stat().st_size:
        return None
    cure = f"copy the head's {OWN} here (mode 600), or set RAY_AUTH_TOKEN_PATH to where it is"
    return Finding("token", FAILED, f"no token in {file}", cure)


@contextmanager
def joined(target: str | None) -> Iterator[None]:
    """Be part of a cluster inside the block.

    Raises:
        UserError: If it does not answer or refuses the token.
    """
    import ray

    from sarx.cluster.resources import join

    join(target)
    try:
        yield
    finally:
        ray.shutdown()


def look_around(resources: Resources, root: Place, roots: Sequence[str]) -> list[Finding]:
    """Return the findings on the cluster that this process has joined."""
    import ray

    from sarx.cluster import node_probe
    from sarx.cluster.resources import grown, missing, nodes, trials_that_fit
    from sarx.study.provenance import PACKAGES

    ray.cloudpickle.register_pickle_by_value(node_probe)  # type: ignore[no-untyped-call]
    mark = f".check-{uuid.uuid4().hex}"
    known = {name_of(node): node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    gpus = {name: node["Resources"].get("GPU", 0.0) for name, node in known.items()}
    request = {
        "packages": list(PACKAGES),
        "gpu": any(gpus.values()) or resources.gpus_per_worker > 0,
        "storage": str(root),
        "mark": mark,
        "roots": list(roots),
    }
    written = isinstance(root, Path) and write_mark(root, mark)
    try:
        here = node_probe.NodeProbe().look(request)
        probes = {name: probe_on(node["NodeID"]) for name, node in known.items()}
        pending = {name: probe.look.remote(request) for name, probe in probes.items()}  # all at once
        looks = {name: look_at(probe, pending[name]) for name, probe in probes.items()}
    finally:
        if written and isinstance(root, Path):
            (root / mark).unlink(missing_ok=True)
    findings = judge(here, looks, gpus, str(root))
    fit = trials_that_fit(nodes(), resources)
    if fit:
        findings.append(Finding("resources", OK, f"{fit} trial{'s' if fit > 1 else ''} at once"))
    elif later := trials_that_fit(grown(), resources):
        text = f"no room for a trial now; nodes start when trials wait, for {later} at once"
        findings.append(Finding("resources", WARNING, text))
    else:
        cure = "add nodes, or larger ones, or lower resources in the study"
        findings.append(Finding("resources", FAILED, missing(grown() or nodes(), resources), cure))
    if kinds := grown():
        text = f"not looked at: up to {len(kinds)} nodes that start when trials need them"
        cure = "look again while a study runs"
        findings.append(Finding("nodes", WARNING, text, cure))
    usable = {
        name: node["NodeID"]
        for name, node in known.items()
        if not isinstance(look := looks[name], str) and look["code"]
    }
    free = free_gpus(known)
    places = meeting_places(usable, free, resources)
    if fit and places:
        found = network(places, resources.gpus_per_worker)
        if found.state == FAILED and resources.num_workers == 1:  # no trial of this study needs it
            found = replace(found, state=WARNING)
        findings.append(found)
    busy = [name for name in usable if resources.gpus_per_worker and gpus[name] >= 1 > free[name]]
    if busy and fit and meeting_places(usable, gpus, resources):
        text = f"not measured with the GPUs of {', '.join(busy)}: all are in use"
        findings.append(Finding("network", WARNING, text, "look again when no study runs there"))
    return findings


def free_gpus(known: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return how many GPUs of each node nobody holds now.

    Args:
        known: What Ray says of each node, by name.
    """
    from ray._private.state import available_resources_per_node  # no public way (2.60)

    free = available_resources_per_node()  # type: ignore[no-untyped-call]
    return {name: free.get(node["NodeID"], {}).get("GPU", 0.0) for name, node in known.items()}


def meeting_places(usable: Mapping[str, str], gpus: Mapping[str, float], resources: Resources) -> list[str]:
    """Return the node of each worker of the network check: one per node, two on a single one; [] for none.

    Where trials use GPUs, only nodes that have them take part: a head often has none.

    Args:
        usable: Id of each node that can take part, by name.
        gpus: GPUs of each node, by name.
        resources: What a trial occupies.
    """
    needs_gpu = resources.gpus_per_worker > 0
    able = [name for name in usable if not needs_gpu or gpus[name] >= 1]
    if len(able) > 1:
        return [usable[name] for name in able]
    if able and resources.num_workers > 1 and (not needs_gpu or gpus[able[0]] >= 2):
        return [usable[able[0]]] * 2
    return []


def write_mark(root: Path, mark: str) -> bool:
    """Leave a file in the folder of results, by which nodes know that it is the same one."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / mark).write_bytes(b"")
        return True
    except OSError:
        return False  # each node will say so


def name_of(node: Mapping[str, Any]) -> str:
    """Return how a node is called in the table: two on one host are told apart by their ids."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"


def probe_on(node_id: str, num_gpus: float = 0) -> Any:
    """Start a probe on a node and return it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from sarx.cluster.node_probe import NodeProbe

    actor: Any = ray.remote(num_cpus=0)(NodeProbe)
    place = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return actor.options(scheduling_strategy=place, num_gpus=num_gpus).remote()


def look_at(probe: Any, pending: Any) -> dict[str, Any] | str:
    """Return what a node has, which its probe is finding out, and how its clock stands; or why not."""
    import ray

    try:
        look: dict[str, Any] = ray.get(pending, timeout=PATIENCE_S)
        best = (float("inf"), 0.0)
        for _ in range(PINGS):
            before = time.time()
            there = ray.get(probe.time.remote(), timeout=PATIENCE_S)
            after = time.time()
            best = min(best, ((after - before) / 2, there - (before + after) / 2))
    except ray.exceptions.GetTimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1]
    return look | {"error_s": best[0], "skew_s": best[1]}


def network(places: Sequence[str], gpus_per_worker: float) -> Finding:
    """Sum a tensor over workers on these nodes and say how fast that was.

    The bandwidth is that of a ring: 2 (n - 1) / n times the bytes, over the seconds of the best of
    ``TIMES``. Source: nccl-tests, doc/PERFORMANCE.md, "bus bandwidth".
    """
    import ray

    size = len(places)
    cure = "open all ports between the nodes; set GLOO_SOCKET_IFNAME / NCCL_SOCKET_IFNAME where they differ"
    probes = [probe_on(node, 1 if gpus_per_worker else 0) for node in places]
    try:
        meeting = ray.get(probes[0].open_port.remote(), timeout=PATIENCE_S)
        joins = [probe.join.remote(rank, size, meeting, NETWORK_S) for rank, probe in enumerate(probes)]
        backend = ray.get(joins, timeout=PATIENCE_S + NETWORK_S)[0]
        sums = ray.get([probe.all_reduce.remote(MIB, TIMES) for probe in probes], timeout=PATIENCE_S)
    except ray.exceptions.RayError as error:
        return Finding("network", FAILED, f"{size} workers: {str(error).strip().splitlines()[-1]}", cure)
    finally:
        for probe in probes:
            ray.kill(probe)
    if not all(right for right, _ in sums):
        return Finding("network", FAILED, f"{backend} all-reduce over {size} workers gave a wrong sum", cure)
    rate = 2 * (size - 1) / size * MIB * 2**20 / max(took for _, took in sums) / 1e9
    nodes = len(set(places))
    where = f"on {nodes} nodes" if nodes > 1 else "on one node"
    return Finding(
        "network", OK, f"{backend} all-reduce of {MIB} MiB, {size} workers {where}: {rate:.2f} GB/s"
    )


def show(findings: Sequence[Finding]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {OK: "green", WARNING: "yellow", FAILED: "red"}
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "state", "found", "cure"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("check", "state"))
    for finding in findings:
        state = Text(finding.state, style=colours[finding.state])
        table.add_row(Text(finding.check), state, Text(finding.found), Text(finding.cure))
    in_log = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    Console(width=120 if in_log else None, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
