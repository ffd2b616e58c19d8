"""What every worker process of a session does: fetch a segment, train it with the others, fetch the next.

See ``sarx.cluster.mailbox`` for how the ranks agree on what fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import ray
import torch
from ray import train
from ray.actor import ActorHandle
from torch import distributed as dist
from torch._C._distributed_c10d import TCPStore

from sarx.cluster.failures import shortened
from sarx.cluster.interface import use_interface
from sarx.cluster.mailbox import ABORT, BEAT_S, ECHO, GO, STALE
from sarx.cluster.segment_run import SegmentRun, Start, decode_work
from sarx.study.schema import Resources

ECHOES = re.compile(
    r"\bgloo\b|\bNCCL\b|another rank failed; its own error says why|^rank 0 failed: |by peer", re.I
)
"""What errors say that may come of another rank's failure."""

GONE_S = 60.0
"""Seconds without an answer of the mailbox after which a rank ends."""


def serve(config: dict[str, Any]) -> None:
    """Run segments until the host ends the session: the function that Ray Train runs on every worker.

    Args:
        config: ``mailbox`` (handle), ``resources``, and ``start``, which makes the results of a segment.

    Raises:
        RuntimeError: If this rank was replaced, or the ranks could not agree; Ray Train starts them anew.
    """
    context = train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    Rank(rank, world_size, config["mailbox"], config["resources"], config["start"]).serve()


class Rank:
    """One worker process of a session.

    Args:
        rank: Its rank.
        world_size: Number of ranks.
        mailbox: Where segments come from.
        resources: What a trial occupies.
        start: Makes the results of a segment.
    """

    def __init__(
        self, rank: int, world_size: int, mailbox: ActorHandle[Any], resources: Resources, start: Start
    ) -> None:
        """Join nothing yet."""
        self.rank, self.world_size = rank, world_size
        self.mailbox, self.resources, self.start = mailbox, resources, start
        self.backend = "nccl" if resources.gpus_per_worker else "gloo"
        self.generation, self.number, self.round = 0, 0, 0
        self.over = threading.Event()
        self.settled = False

    def serve(self) -> None:
        """Join the others and run what is posted."""
        self.host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        use_interface(self.host)
        group = ray.util.get_current_placement_group()
        self.generation = self.call(
            "join",
            group.id.hex() if group else str(os.getpid()),
            self.rank,
            self.world_size,
            os.getpid(),
            ray.get_runtime_context().get_node_id(),
        )
        if not self.generation:
            raise RuntimeError("other processes have taken the place of this rank")
        beats = threading.Thread(target=self.beat, name="beats", daemon=True)
        beats.start()
        try:
            self.join_group()
            while work := self.fetch():
                self.run(work)
        finally:
            self.over.set()
            leave()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call the mailbox and wait for the answer."""
        return ray.get(getattr(self.mailbox, method).remote(*arguments))

    def fetch(self) -> str:
        """Return the next segment as text; empty when there will be none."""
        posted = self.call("next", self.generation, self.number)
        if posted is None:
            raise RuntimeError("other processes have taken the place of this rank")
        number, work = posted
        self.number = number or self.number
        return str(work)

    # ---------------------------------------------------------------- one segment

    def run(self, text: str) -> None:
        """Run a segment; a failure of any rank becomes one of all, and the group is formed anew."""
        failure = None
        segment = SegmentRun(decode_work(text), self.start, self.rank, self.world_size)
        try:
            self.train(segment)
        except Exception as error:  # noqa: BLE001  whatever a trial raises, the session serves the next one
            reason = shortened(f"{type(error).__name__}: {error}")
            failure = {"reason": reason, "log": str(segment.log), ECHO: is_echo(error)}
        if failure is None:
            self.clean()
            return
        report: Any = self.mailbox.report.remote(self.generation, self.number, self.rank, failure)
        leave()  # throws the others out of what they wait for
        with contextlib.suppress(RuntimeError, ValueError):  # it has failed; no more can come of it
            segment.close()
        del segment
        self.clean()
        if not ray.get(report):
            raise RuntimeError("not all ranks answered after a failure; they start anew")
        self.form()

    def train(self, segment: SegmentRun) -> None:
        """Train epoch by epoch; rank 0 waits after each until the host has recorded it."""
        try:
            while True:
                result = segment.advance()
                if self.rank == 0:
                    order = self.call("deliver", self.generation, self.number, result)
                    if order != GO and not result["done"]:
                        raise RuntimeError("the host has given this attempt up")
                if result["done"]:
                    return
        finally:
            if sys.exc_info()[0] is None:
                segment.close()

    def clean(self) -> None:
        """Give back what a trial has left, so that the hundredth finds what the first did."""
        gc.collect()
        trim()
        if not self.settled:  # all modules are loaded now; what stays for good need not be looked at again
            gc.freeze()
            self.settled = True
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    # ---------------------------------------------------------------- the process group

    def join_group(self) -> None:
        """Form the first process group; the mailbox hears why it cannot be.

        Raises:
            RuntimeError: If the ranks cannot connect.
        """
        try:
            self.form()
        except (RuntimeError, OSError, ValueError) as error:
            self.call("apart", self.generation, self.rank, shortened(f"{type(error).__name__}: {error}"))
            raise

    def form(self) -> None:
        """Form the process group of the next round with all ranks."""
        self.round += 1
        timeout = timedelta(seconds=self.resources.collective_timeout_s)
        if self.rank == 0:
            store = TCPStore(self.host, 0, self.world_size, True, timeout=timeout, wait_for_workers=False)
            self.call("publish", self.generation, self.round, (self.host, store.port))
        else:
            address = self.call("address", self.generation, self.round)
            if address is None:
                raise RuntimeError("other processes have taken the place of this rank")
            store = TCPStore(address[0], address[1], self.world_size, False, timeout=timeout)
        if self.backend == "nccl":
            torch.cuda.set_device(torch.cuda.current_device())
        dist.init_process_group(
            self.backend, store=store, rank=self.rank, world_size=self.world_size, timeout=timeout
        )

    def beat(self) -> None:
        """Give signs of life; leave the process group of a segment that has failed on another rank."""
        aborted = 0
        while not self.over.wait(BEAT_S):
            try:
                order: Any = ray.get(
                    self.mailbox.beat.remote(self.generation, self.number, self.rank), timeout=GONE_S
                )
            except (ray.exceptions.RayError, TimeoutError):  # the host is gone, and the session with it
                os._exit(1)
            if order == STALE:
                os._exit(1)
            if order == ABORT and self.backend == "nccl" and aborted != self.number:
                aborted = self.number
                abort: Callable[[], None] = dist.distributed_c10d._abort_process_group
                abort()  # gloo needs none: its sockets close when the first rank leaves


def is_echo(error: BaseException) -> bool:
    """Return whether an error may only say that another rank failed."""
    return isinstance(error, dist.DistError) or ECHOES.search(str(error)) is not None


def trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc)."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError, ValueError, AssertionError):  # aborted or broken already
            dist.destroy_process_group()
