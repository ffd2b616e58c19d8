"""What runs on every node for ``sarx.cluster.check``. It travels by value: a node may lack sarx.

At its top only the standard library is imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import socket
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

MIB = 1 << 20


class NodeProbe:
    """An actor on one node."""

    def look(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what this node has.

        Args:
            request: ``packages`` (names), ``gpu`` (whether to ask torch for GPUs), ``storage`` (folder or
                ''), ``mark`` (name of a file in it that the driver wrote), ``roots`` (folders of data sets).
        """
        found: dict[str, Any] = {"host": socket.gethostname(), "versions": versions(request["packages"])}
        found |= training_code()
        found["gpus"] = visible_gpus() if request["gpu"] else 0
        found |= storage(request["storage"], request["mark"])
        found["no_data"] = [root for root in request["roots"] if not Path(root).is_dir()]
        return found

    def time(self) -> float:
        """Return this node's clock, in seconds since the epoch."""
        return time.time()

    def open_port(self) -> tuple[str, int]:
        """Return address and port at which the ranks of the network check can meet."""
        import ray
        from torch._C._distributed_c10d import TCPStore

        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self.store = TCPStore(address, 0, None, True, timeout=timedelta(seconds=60), wait_for_workers=False)
        return address, self.store.port

    def join(self, rank: int, world_size: int, address: tuple[str, int], timeout_s: float) -> str:
        """Form a process group with the others and return its backend; the node must have sarx."""
        import ray
        import torch
        import torch.distributed as dist
        from torch._C._distributed_c10d import TCPStore

        from sarx.cluster.interface import use_interface

        use_interface(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        patience = timedelta(seconds=timeout_s)
        if rank:
            self.store = TCPStore(address[0], address[1], None, False, timeout=patience)
        self.cuda = bool(ray.get_gpu_ids()) and torch.cuda.is_available()
        backend = "nccl" if self.cuda else "gloo"
        if self.cuda:
            torch.cuda.set_device(0)
        dist.init_process_group(backend, store=self.store, rank=rank, world_size=world_size, timeout=patience)
        return backend

    def all_reduce(self, mib: int, times: int) -> tuple[bool, float]:
        """Sum ``mib`` MiB of float32 over the ranks; return whether it is right, and the least seconds."""
        import torch
        import torch.distributed as dist

        world_size = dist.get_world_size()
        expected = world_size * (world_size + 1) / 2
        least, right = float("inf"), True
        for turn in range(times + 1):  # the first opens connections and does not count
            values = torch.full(
                (mib * MIB // 4,), dist.get_rank() + 1.0, device="cuda" if self.cuda else "cpu"
            )
            dist.barrier()
            started = time.perf_counter()
            dist.all_reduce(values)
            if self.cuda:
                torch.cuda.synchronize()
            took = time.perf_counter() - started
            least = min(least, took) if turn else least
            right &= bool((values == expected).all())
        return right, least


def versions(packages: list[str]) -> dict[str, str]:
    """Return the version of Python and of each package, ``none`` for one that is not installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def training_code() -> dict[str, Any]:
    """Return ``code``, digests of the training code by file, and ``no_sarx``, why it cannot be imported."""
    try:
        identity = importlib.import_module("sarx.study.identity")
    except ImportError as error:
        return {"code": {}, "no_sarx": str(error)}
    files = identity.training_code().files.items()
    return {"code": {path: digest for path, digest in files if "version of " not in path}, "no_sarx": ""}


def visible_gpus() -> int:
    """Return how many GPUs torch can use in a process that sees them all."""
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides those that an actor did not ask for
    try:
        import torch

        return torch.cuda.device_count()
    except ImportError:
        return 0
    finally:
        if hidden is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hidden


def store_problem(url: str) -> str:
    """Return why a study cannot lie on an object store for this node, or ''."""
    try:
        from sarx.study.store import check_store
        from sarx.study.store_object import store_of
        from sarx.study.urls import url_of
    except ImportError as error:
        return f"this node cannot tell: {error}"
    try:
        check_store(store_of(url_of(url) / ".check"))
    except ValueError as error:  # UserError
        return str(error)
    return ""


def storage(folder: str, mark: str) -> dict[str, Any]:
    """Return ``unwritable`` (why, or ''), ``unshared`` and ``free_gib`` of the folder of results."""
    found: dict[str, Any] = {"unwritable": "", "unshared": False, "free_gib": 0.0}
    if not folder:
        return found
    if "://" in folder:
        return found | {"unwritable": store_problem(folder), "free_gib": float("inf")}
    path = Path(folder) / f".check-{uuid.uuid4().hex}"
    try:
        path.write_bytes(b"sarx")
        if path.read_bytes() != b"sarx":
            found["unwritable"] = "what was written reads differently"
        path.unlink()
        found["free_gib"] = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        found["unwritable"] = error.strerror or str(error)
        return found
    found["unshared"] = not (Path(folder) / mark).exists()
    return found
