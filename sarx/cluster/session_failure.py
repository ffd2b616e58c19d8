"""How a segment failed that several workers ran together, by name and reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sarx.cluster.failures import FATAL, MEMORY, TIMEOUT, last_attempt, shortened, where_it_was
from sarx.cluster.mailbox import DIED
from sarx.study.ledger_schema import FAILURES


class SessionFailure(Exception):
    """What a session says of a failed segment.

    Args:
        failure: Either ``rank`` and ``reason`` of the first exception, or ``lost``, a list of ``{rank, pid,
            node}`` of the processes that are gone or silent, and ``reason``.
    """

    def __init__(self, failure: Mapping[str, Any]) -> None:
        """Keep what the mailbox said."""
        super().__init__(str(failure.get("reason", "")))
        self.reason = str(failure.get("reason", ""))
        self.rank = failure.get("rank")
        self.lost: list[Mapping[str, Any]] = list(failure.get("lost", ()))

    def unsettled(self, dead_nodes: Collection[str]) -> bool:
        """Whether only time can tell if it was the node: a rank is silent, and its node is not yet dead."""
        return bool(self.lost) and self.reason != DIED and not self._dead(dead_nodes)

    def classify(self, log: Path, attempt: int, dead_nodes: Collection[str]) -> tuple[str, str]:
        """Return kind (see FAILURES) and reason.

        Args:
            log: The trial's log; those of further ranks lie beside it.
            attempt: The attempt.
            dead_nodes: Ids of nodes that are known to be dead.
        """
        if self.rank is not None:
            return "out_of_memory" if MEMORY.search(self.reason) else "crashed", shortened(
                f"rank {self.rank}: {self.reason}"
            )
        if dead := self._dead(dead_nodes):
            return "preempted", f"the node of {who(dead)} was lost or taken away ({dead[0]['node']})"
        texts = [
            last_attempt(log if not rank else log.with_name(f"log-rank{rank}.txt"), attempt)[0]
            for rank in sorted({0, *(entry["rank"] for entry in self.lost)})
        ]
        for text in texts:
            if TIMEOUT.search(text):
                return "timed_out", f"{FAILURES['timed_out']}; {where_it_was(text)}"
        for text in texts:
            if fatal := FATAL.findall(text):
                name = next((number for _, number in reversed(fatal) if number), fatal[-1][0])
                return "crashed", f"{who(self.lost)} died ({name}); the log has the stack"
        hint = " (SIGKILL, or the machine's memory was full)" if self.reason == DIED else ""
        return "crashed", shortened(f"{who(self.lost)}: {self.reason}{hint}")

    def _dead(self, dead_nodes: Collection[str]) -> list[Mapping[str, Any]]:
        return [entry for entry in self.lost if entry["node"] in dead_nodes]


def who(ranks: list[Mapping[str, Any]]) -> str:
    """Return ``rank 1 (pid 7)``, or ``ranks 1, 3``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]['rank']} (pid {ranks[0]['pid']})"
    return f"ranks {', '.join(str(entry['rank']) for entry in ranks)}" if ranks else "a worker"
