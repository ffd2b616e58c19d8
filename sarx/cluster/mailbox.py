"""The mailbox between a trial host and the ranks of its session: an asynchronous Ray actor without resources.

The host posts one segment after the other and takes what comes of it. Every rank fetches the segment itself;
rank 0 delivers results. A *generation* is one set of worker processes, a *round* one process group of theirs.

How a segment can fail, and what the host is told:

- An exception on some rank: that rank reports it and leaves the process group; the others are thrown out of
  their collectives and report too. Once all have, the group is formed anew and the next segment can begin.
- A rank that does not answer within ``ANSWER_S``: the segment is failed, and the ranks that did are told to
  exit, so that Ray Train starts the processes anew.
- New processes join while a segment runs: those before were lost.
- A rank whose sign of life is missing for ``SILENT_S``: it is lost, or holds the interpreter for good.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ANSWER_S = 30.0
"""Seconds within which all ranks must agree that a segment has failed."""
SILENT_S = 30.0
"""Seconds without a sign of life after which a rank is taken for lost."""
BEAT_S = 1.0
"""Seconds between two signs of life."""

GO, STOP, ABORT, STALE = "go", "stop", "abort", "stale"
ECHO = "echo"
"""Key of a failure that may only say that another rank failed: a broken connection, or a wait in vain."""

APART = 3
"""Groups of processes in a row that cannot connect, until the segment that waits for them has failed."""

DIED = "its worker process died"


@dataclass
class Member:
    """A worker process: where it is, when it was heard of last."""

    pid: int
    node: str
    seen: float = field(default_factory=time.monotonic)


class Mailbox:
    """See the module. All methods are remote calls; those of ranks carry their generation.

    Args:
        answer_s: As ``ANSWER_S``.
        silent_s: As ``SILENT_S``.
    """

    def __init__(self, answer_s: float = ANSWER_S, silent_s: float = SILENT_S) -> None:
        """Start without ranks and without a segment."""
        self.answer_s, self.silent_s = answer_s, silent_s
        self.generation, self.world_size = 0, 0
        self.group, self.former = "", set[str]()
        self.members: dict[int, Member] = {}
        self.addresses: dict[int, tuple[str, int]] = {}
        self.number, self.work = 0, ""
        self.running = False
        self.begun = False
        self.wanted, self.taken, self.delivered = 0, 0, 0
        self.results: deque[dict[str, Any]] = deque()
        self.reports: dict[int, Mapping[str, Any]] = {}
        self.failure: dict[str, Any] | None = None
        self.unformed: set[int] = set()
        self.over = False
        self._condition: asyncio.Condition | None = None

    # ---------------------------------------------------------------- the host

    async def post(self, work: str) -> int:
        """Let the ranks run a segment; return its number."""
        self.number, self.work = self.number + 1, work
        self.running, self.begun = True, False
        self.wanted, self.taken, self.delivered = 0, 0, 0
        self.results.clear()
        self.reports, self.failure = {}, None
        await self._notify()
        return self.number

    async def take(self, patience_s: float) -> dict[str, Any]:
        """Return the next result of the segment, ``{"failure": JSON}``, or ``{}`` if nothing came.

        It lets rank 0 begin the next epoch: call it only when the result before is recorded.
        """
        self.wanted = self.taken + 1
        await self._notify()
        deadline = time.monotonic() + patience_s
        while True:
            self._look_for_silence()
            if self.results:
                result = self.results.popleft()
                self.taken += 1
                self.running = not result["done"]
                return result
            if self.failure is not None:
                self.running = False
                await self._notify()
                return {"failure": json.dumps(self.failure), "done": True}
            left = deadline - time.monotonic()
            if left <= 0:
                return {}
            await self._wait(min(left, BEAT_S))

    async def complete(self) -> bool:
        """Return whether a whole set of worker processes is there."""
        return self.world_size > 0 and len(self.members) == self.world_size

    async def end(self) -> None:
        """Let the ranks leave their loop when they have no segment."""
        self.over = True
        await self._notify()

    # ---------------------------------------------------------------- the ranks

    async def join(self, group: str, rank: int, world_size: int, pid: int, node: str) -> int:
        """Take in a worker process; return the generation once all of its ranks are there.

        Args:
            group: What the processes that were started together share, and no others.
            rank: Its rank.
            world_size: Number of ranks.
            pid: Its process.
            node: Id of its Ray node.

        Returns:
            0 if others have taken its place.
        """
        if group in self.former:
            return 0
        if group != self.group:
            lost = self._where(self._oldest())
            self.former.add(self.group)
            self.group = group
            self.generation += 1
            self.world_size, self.members, self.addresses = world_size, {}, {}
            if self.running and self.begun and self.failure is None:
                self.failure = {"lost": lost, "reason": DIED}
            await self._notify()
        generation = self.generation
        self.members[rank] = Member(pid, node)
        await self._notify()
        await self._until(lambda: generation != self.generation or len(self.members) == world_size)
        return generation if generation == self.generation else 0

    async def publish(self, generation: int, number: int, address: tuple[str, int]) -> None:
        """Say where rank 0 keeps the store of round ``number``."""
        if generation == self.generation:
            self.addresses[number] = address
            await self._notify()

    async def address(self, generation: int, number: int) -> tuple[str, int] | None:
        """Return where the store of a round is; None if the generation is over."""
        await self._until(lambda: generation != self.generation or number in self.addresses)
        return self.addresses.get(number) if generation == self.generation else None

    async def next(self, generation: int, after: int) -> tuple[int, str] | None:
        """Return number and text of a segment later than ``after``; None if others took this rank's place.

        The number is 0 if there will be no segment any more.
        """

        def ready() -> bool:
            waiting = self.running and self.failure is None and self.number > after
            return self.over or generation != self.generation or waiting

        await self._until(ready)
        if generation != self.generation:
            return None
        if self.over:
            return 0, ""
        self.begun = True
        self.unformed.clear()
        return self.number, self.work

    async def deliver(self, generation: int, number: int, result: dict[str, Any]) -> str:
        """Hand a result of rank 0 to the host; return GO once it wants the next epoch, else STOP."""
        if not self._current(generation, number):
            return STOP
        self.results.append(result)
        self.delivered += 1
        mine = self.delivered
        await self._notify()
        if result["done"]:
            return STOP
        await self._until(lambda: self.wanted > mine or not self._current(generation, number))
        return GO if self._current(generation, number) else STOP

    async def report(self, generation: int, number: int, rank: int, failure: Mapping[str, Any]) -> bool:
        """Take in that a rank's run of a segment failed; return whether all ranks answered in time.

        What the host is told is the first report that is no ``ECHO`` of another rank's failure; without one,
        and with ranks that do not answer, it is those that are to blame.

        If they did, the group can be formed anew; else this process must exit.
        """

        def over() -> bool:
            return generation != self.generation or number != self.number

        if over():
            return False
        self.reports.setdefault(rank, failure)
        await self._notify()
        everybody = await self._until(lambda: over() or len(self.reports) == self.world_size, self.answer_s)
        if over():  # the host was told meanwhile, and has posted another segment
            return False
        if self.failure is None:
            silent = [other for other in self.members if other not in self.reports]
            causes = [one for one, said in self.reports.items() if not said.get(ECHO)]
            if causes or everybody:
                first = (causes or list(self.reports))[0]
                told = {key: value for key, value in self.reports[first].items() if key != ECHO}
                self.failure = {"rank": first, **told}
            else:
                self.failure = {"lost": self._where(silent), "reason": "it did not answer"}
            await self._notify()
        return everybody

    async def apart(self, generation: int, rank: int, reason: str) -> None:
        """Take in that a rank could not form the process group; its processes start anew.

        After ``APART`` generations in a row the segment that waits for them has failed.
        """
        if generation != self.generation:
            return
        self.unformed.add(generation)
        if len(self.unformed) >= APART and self.running and self.failure is None:
            self.failure = {"rank": rank, "reason": f"the workers cannot connect: {reason}"}
            self.unformed.clear()
        await self._notify()

    async def beat(self, generation: int, number: int, rank: int) -> str:
        """Take a sign of life; return ABORT where the segment that this rank runs has failed elsewhere."""
        if generation != self.generation:
            return STALE
        if rank in self.members:
            self.members[rank].seen = time.monotonic()
        failed = number == self.number and bool(self.reports or self.failure) and rank not in self.reports
        return ABORT if failed else GO

    # ---------------------------------------------------------------- inside

    def _current(self, generation: int, number: int) -> bool:
        alive = generation == self.generation and number == self.number
        return alive and self.running and self.failure is None

    def _oldest(self) -> list[int]:
        """Return the rank that was not heard of for longest, among those that did not report."""
        silent = {rank: member.seen for rank, member in self.members.items() if rank not in self.reports}
        return [min(silent, key=silent.__getitem__)] if silent else []

    def _where(self, ranks: list[int]) -> list[dict[str, Any]]:
        return [
            {"rank": rank, "pid": self.members[rank].pid, "node": self.members[rank].node} for rank in ranks
        ]

    def _look_for_silence(self) -> None:
        if not (self.running and self.begun and self.failure is None):
            return
        limit = time.monotonic() - self.silent_s
        if silent := [rank for rank, member in self.members.items() if member.seen < limit]:
            self.failure = {"lost": self._where(silent), "reason": f"no sign of life for {self.silent_s:g} s"}

    @property
    def _changed(self) -> asyncio.Condition:
        if self._condition is None:
            self._condition = asyncio.Condition()
        return self._condition

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, seconds: float) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait(), seconds)
            except TimeoutError:
                return

    async def _until(self, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until something holds, ``seconds`` at most; return whether it does."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not ready():
            left = BEAT_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            await self._wait(min(left, BEAT_S))
        return True
