"""Joining or starting a cluster, and what fits on it."""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import Any

from sarx.cluster.tokens import own_token
from sarx.config.errors import UserError
from sarx.study.schema import Resources

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",  # authentication stays on; Ray makes the token where there is none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # sarx.cluster.slots says how many
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # each failure is one line of ours
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",  # its port listens on every address and asks for no token
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # a thousand characters beside our line
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own progress would name its scratch folder as the results
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

GROWS = "SARX_CLUSTER_GROWS"
"""Tells a job which nodes its cluster starts on demand, as JSON: ``[{"nodes": 8, "CPU": 8, "GPU": 1}]``."""


def prepare_environment() -> None:
    """Set what Ray reads at import time; the user's own settings stay."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def check_local(resources: Resources) -> None:
    """Refuse, before Ray starts, a trial that this machine cannot hold.

    Raises:
        UserError: Naming what is missing.
    """
    cpus = len(os.sched_getaffinity(0))
    workers = resources.fewest_workers
    if resources.cpus_per_worker * workers > cpus:
        each = f" ({workers} workers with {resources.cpus_per_worker} each)" if workers > 1 else ""
        raise UserError(
            f"one trial needs {resources.cpus_per_worker * workers} CPUs{each} and this machine has {cpus}; "
            "lower it or join a cluster with --address",
            key="resources.num_workers" if workers > 1 else "resources.cpus_per_worker",
        )


def check_reachable(address: str) -> None:
    """Refuse, before anything starts, a HOST:PORT where nothing listens; other addresses are Ray's to judge.

    Raises:
        UserError: Naming the address.
    """
    host, separator, port = address.rpartition(":")
    if separator and "/" not in address and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            raise UserError(f"no cluster answers at {address} ({error})", where="--address") from None


def connect(address: str | None, resources: Resources) -> int:
    """Join a cluster, or start one on this machine, and return how many trials fit at once.

    Args:
        address: ``--address``, else RAY_ADDRESS (set inside submitted jobs), else none: a local cluster.
        resources: What one trial occupies.

    Raises:
        UserError: If the cluster cannot be reached or can never hold one trial.
    """
    import ray

    target = address or os.environ.get("RAY_ADDRESS")
    if not target:
        check_local(resources)
    join(target)
    if slots := capacity(resources):
        return slots
    lacking = missing(grown() or nodes(), resources)
    ray.shutdown()
    raise UserError(lacking, where="resources")


def join(target: str | None) -> None:
    """Join a cluster, or start one on this machine.

    Raises:
        UserError: If it cannot be reached or refuses the token.
    """
    import ray

    own_token(make=not target)
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    try:
        if not target:
            ray.init(address="local", include_dashboard=False, **common)
        else:
            ray.init(address=target, **common)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no cluster answers at {target or 'this machine'}: {error}", where="--address"
        ) from None


def missing(found: list[dict[str, float]], resources: Resources) -> str:
    """Return what these nodes lack to hold one trial.

    Args:
        found: Total resources of each node.
        resources: What one trial occupies.
    """
    needs, fewest = needs_of(resources), resources.fewest_workers
    wanted = ", ".join(f"{amount:g} {name}" for name, amount in needs.items())
    have = ", ".join(f"{sum(node.get(name, 0) for node in found):g} {name}" for name in ("CPU", "GPU"))
    if fewest == 1:
        return f"one trial needs {wanted} on one node and no node has that (the cluster: {have})"
    there = sum(slots_of(node, needs) for node in found)
    return (
        f"one trial needs {fewest} workers with {wanted} each, and the nodes have room for {there} (the "
        f"cluster: {have} on {len(found)} nodes)"
    )


def needs_of(resources: Resources) -> dict[str, float]:
    """Return what one worker of a trial occupies, by Ray's names."""
    needs = {"CPU": float(resources.cpus_per_worker), "GPU": resources.gpus_per_worker}
    return {name: amount for name, amount in needs.items() if amount}


def capacity(resources: Resources) -> int:
    """Return how many trials fit at once: on the nodes that live now, or on all that the cluster can start.

    A cluster that grows sees what waits, so it is given as many trials as it can ever hold.
    """
    return max(trials_that_fit(nodes(), resources), trials_that_fit(grown(), resources))


def grows() -> bool:
    """Return whether this cluster starts nodes when something waits for them."""
    return bool(os.environ.get(GROWS))


def grown() -> list[dict[str, float]]:
    """Return the total resources of each node that this cluster can start; [] if it starts none.

    Raises:
        UserError: If the variable has another form.
    """
    if not grows():
        return []
    try:
        kinds = json.loads(os.environ[GROWS])
        return [
            {name: float(amount) for name, amount in kind.items() if name != "nodes"}
            for kind in kinds
            for _ in range(int(kind["nodes"]))
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(
            f'{os.environ[GROWS]!r} is no list of kinds of nodes; write [{{"nodes": 8, "CPU": 8, "GPU": 1}}]',
            where=GROWS,
        ) from None


def trials_that_fit(found: list[dict[str, float]], resources: Resources) -> int:
    """Return how many trials fit at once on nodes with these total resources.

    The workers of a trial may lie on several nodes. Where the nodes have room for fewer than
    ``num_workers`` and no fewer than ``min_workers``, one trial runs on what there is.
    """
    workers = sum(slots_of(node, needs_of(resources)) for node in found)
    return workers // resources.num_workers or int(workers >= resources.fewest_workers)


def nodes() -> list[dict[str, float]]:
    """Return the total resources of each live node."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def slots_of(node: dict[str, float], needs: dict[str, float]) -> int:
    """Return how many trials fit on a node."""
    return int(min(node.get(name, 0.0) // amount for name, amount in needs.items() if amount))
