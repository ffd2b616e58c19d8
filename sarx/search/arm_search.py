"""One search of one arm: its proposals in batches, its rungs, and its ranking at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sarx.search.book import Book, place
from sarx.search.claims import Claim
from sarx.search.common import CommonPoints
from sarx.search.propose import Proposal, Told, next_batch
from sarx.search.rungs import above_median, in_top_share, rung_epochs, survivors
from sarx.search.state import DECIDED, DIVERGED, FAILED, FINISHED
from sarx.study.design import Arm
from sarx.study.ledger import unpack_parameters
from sarx.study.ledger_schema import SEARCH
from sarx.study.seeds import derive
from sarx.study.space import contains

AHEAD = 2
"""Batches proposed ahead of the first trial that has not started, where batches need not wait."""


@dataclass(eq=False)
class Seat:
    """A claim and how far it may run.

    Attributes:
        until: Epoch up to which its trial may run now.
        stopped: Rung at which it was stopped early; None if it was not.
        same_as: Index of an earlier proposal of the arm with the same point; its trial counts for both.
        memory: What the sampler remembers with the proposal.
        settled: Whether nothing more can come of it.
        begun: Whether it is settled, or its trial was started by this driver.
        home: The search or choice that it belongs to; None of a confirm seed.
    """

    claim: Claim
    until: int
    stopped: int | None = None
    same_as: int | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)
    settled: bool = False
    begun: bool = False
    home: object = None


class ArmSearch:
    """The search ``repeat`` of an arm.

    Args:
        book: Ledger and records.
        arm: The arm.
        repeat: Which of its independent searches.
        common: The points that all arms share.
        total: Number of its proposals.
    """

    def __init__(self, book: Book, arm: Arm, repeat: int, common: CommonPoints, total: int) -> None:
        """Start without proposals; ``next_batch`` takes up those of the ledger."""
        self.book, self.arm, self.repeat, self.common, self.total = book, arm, repeat, common, total
        self.seats: list[Seat] = []
        self.open = 0
        self.idle = 0
        self._points: dict[str, int] = {}
        self._at_rung: dict[int, list[float]] = {}
        self._rungs: tuple[int, ...] | None = None

    @property
    def done(self) -> bool:
        """Whether all proposals are made and settled."""
        return len(self.seats) == self.total and self.open == 0

    def next_batch(self) -> list[Seat]:
        """Make the next batch of proposals if it may be made now; else return no seats."""
        search = self.book.study.search
        if len(self.seats) == self.total:
            return []
        if (search.waits and self.open) or (not search.waits and self.idle >= AHEAD * search.batch):
            return []
        start = len(self.seats)
        size = min(search.batch, self.total - start)
        seats = self._recorded(start, size)
        if seats is None:
            proposals = self._proposals(start, size)
            seats = [self._proposed(start + i, proposal) for i, proposal in enumerate(proposals)]
        new = [self._take(seat) for seat in seats]
        if any(new):
            self.book.ledger.sync()
        return seats

    def begin(self, seat: Seat) -> None:
        """Note that a seat's trial was started."""
        self.idle -= not seat.begun
        seat.begun = True

    def judge(self, seat: Seat) -> list[Seat]:
        """Settle a seat whose trial has moved, and return the seats that may go on or are settled now."""
        if seat.settled:
            return []
        record = self.book.record(seat.claim)
        changed = self._rung(seat)
        waits = seat.until in (self._rungs or ()) and seat.until in record.goals
        if not seat.settled and record.status in DECIDED and not waits:
            self._settle(seat)
            changed.append(seat)
        return changed

    def ranking(self) -> list[tuple[float, Claim]]:
        """Return value and claim of the trials that ran to the end, the best first, ties to the earlier."""
        found = [
            (self.book.value(self.book.record(seat.claim).final), seat.claim)
            for seat in self.seats
            if seat.stopped is None and seat.same_as is None
        ]
        return sorted((item for item in found if item[0] > -math.inf), key=lambda item: -item[0])

    def chosen(self, claim: Claim) -> dict[str, Any]:
        """Return the parameters that a winner passes on to its confirm trials.

        Where other arms follow, these are the values of all searched options, also where they are the
        winner's defaults: a follower may have others.
        """
        return self._values(claim) if self.book.study.search.scope == "shared" else dict(claim.parameters)

    # ---------------------------------------------------------------- proposals

    def _recorded(self, start: int, size: int) -> list[Seat] | None:
        """Return the batch as an earlier start proposed it, if all of it still holds."""
        seats = []
        for index in range(start, start + size):
            event = self.book.proposed.get((self.arm.name, self.arm.level, self.repeat, index))
            if event is None:
                return None
            stored = unpack_parameters(event["parameters"])
            if not self._fits(stored, index):
                return None
            payload = json.loads(event.get("payload") or "{}")
            if payload.get("by") != self._model(start):
                return None
            seat = self._seat(self.book.recorded(self.arm, event, stored), payload.get("memory", {}))
            if seat.claim.trial_id != event["trial_id"]:
                return None
            seats.append(seat)
        return seats

    def _proposals(self, start: int, size: int) -> list[Proposal]:
        search = self.book.study.search
        if self._model(start) is None:
            return [Proposal(self._common(i), {}) for i in range(start, start + size)]
        study = self.book.study
        return next_batch(
            self.arm.space,
            search.sampler,
            seed=derive(study.seed, self.arm.key, self.repeat),
            start=start,
            size=size,
            history=[self._told(seat) for seat in self.seats],
            modes=[goal.mode for goal in study.objective.goals],
        )

    def _model(self, start: int) -> str | None:
        """Return the sampler that proposes a batch from results; None for points that arms share."""
        search = self.book.study.search
        return search.sampler.name if search.waits and start >= search.sampler.startup else None

    def _common(self, index: int) -> dict[str, Any]:
        point = self.common.point(self.repeat, index)
        return {p.key: point[p.key] for p in self.arm.space if p.key in point}

    def _fits(self, parameters: Mapping[str, Any], index: int) -> bool:
        space, grid = self.arm.space, self.book.study.search.sampler.name == "grid"
        if grid:
            return dict(parameters) == self._common(index)
        if not space or index == 0:
            return not parameters
        return set(parameters) == {p.key for p in space} and all(
            contains(p, parameters[p.key]) for p in space
        )

    def _proposed(self, index: int, proposal: Proposal) -> Seat:
        claim = self.book.claim(self.arm, SEARCH, index, proposal.point, repeat=self.repeat)
        return self._seat(claim, proposal.memory)

    def _seat(self, claim: Claim, memory: Mapping[str, Any]) -> Seat:
        if self._rungs is None:
            self._rungs = rung_epochs(self.book.study.search.scheduler, claim.epochs)
        return Seat(claim, (*self._rungs, claim.epochs)[0], memory=memory, home=self)

    def _take(self, seat: Seat) -> bool:
        """Add a seat; return whether its proposal is new to the ledger."""
        text = json.dumps(self._values(seat.claim), sort_keys=True)
        first = self._points.setdefault(text, seat.claim.index)
        payload: dict[str, Any] = {"memory": seat.memory} if seat.memory else {}
        size = self.book.study.search.batch
        if model := self._model(seat.claim.index // size * size):
            payload["by"] = model
        if first != seat.claim.index:
            seat.same_as, seat.settled, seat.begun = first, True, True
            payload["same_as"] = first
        self.seats.append(seat)
        if not seat.settled:
            self.open += 1
            self.idle += 1
        event = self.book.proposed.get(place(seat.claim))
        if event is not None and event["trial_id"] == seat.claim.trial_id:
            stored = json.loads(event.get("payload") or "{}")
            if stored.get("same_as") == seat.same_as:
                return False
        self.book.write_claim("proposed", seat.claim, **payload)
        return True

    def _values(self, claim: Claim) -> dict[str, Any]:
        """Return what a proposal uses of every searched option; the default uses its own."""
        plain = self.book.plain(self.arm)
        found = {}
        for parameter in self.arm.space:
            group, name = parameter.key.split(".")
            found[parameter.key] = claim.parameters.get(parameter.key, plain[group][name])
        return found

    def _told(self, seat: Seat) -> Told:
        point, memory = self._values(seat.claim), seat.memory
        if seat.same_as is not None:
            seat = self.seats[seat.same_as]
        record = self.book.record(seat.claim)
        if seat.stopped is not None:
            return Told(point, "stopped", record.goals.get(seat.stopped, ()), seat.stopped, memory)
        if record.status == DIVERGED or (record.status == FINISHED and any(v != v for v in record.final)):
            return Told(point, "diverged", memory=memory)
        if record.status == FAILED:
            return Told(point, "failed", memory=memory)
        return Told(point, "finished", record.final, record.epoch, memory)

    # ---------------------------------------------------------------- rungs

    def _rung(self, seat: Seat) -> list[Seat]:
        """Judge at the rung that a seat has reached; with halving, once all of its batch has."""
        changed: list[Seat] = []
        scheduler = self.book.study.search.scheduler
        while not seat.settled and seat.until in (self._rungs or ()):
            rung = seat.until
            if scheduler.name == "successive_halving":
                moved = self._halve(seat, rung)
            else:
                moved = self._judge_alone(seat, rung)
            changed += moved
            if not moved or seat.until == rung:
                break
        return changed

    def _halve(self, seat: Seat, rung: int) -> list[Seat]:
        batch = self.book.study.search.batch
        first = seat.claim.index // batch * batch
        if len(self.seats) < min(first + batch, self.total):
            return []
        alive = [s for s in self.seats[first : first + batch] if s.same_as is None and s.until >= rung]
        if not all(self._reached(s, rung) for s in alive):
            return []
        judged = [s for s in alive if not self._gate_closed(s, rung)]
        kept = survivors(
            [self._value_at(s, rung) for s in judged], self.book.study.search.scheduler.reduction_factor
        )
        going = {id(judged[i]) for i in kept} | {id(s) for s in alive if s not in judged}
        return [
            s for s in alive if s.until == rung and not s.settled and self._verdict(s, rung, id(s) in going)
        ]

    def _judge_alone(self, seat: Seat, rung: int) -> list[Seat]:
        if not self._reached(seat, rung):
            return []
        scheduler = self.book.study.search.scheduler
        value, others = self._value_at(seat, rung), self._at_rung.setdefault(rung, [])
        if self._gate_closed(seat, rung):
            goes = True
        elif scheduler.name == "asha":
            goes = in_top_share(value, others, scheduler.reduction_factor)
        else:
            goes = above_median(value, others, scheduler.min_trials)
        others.append(value)
        return [seat] if self._verdict(seat, rung, goes) else []

    def _verdict(self, seat: Seat, rung: int, goes: bool) -> bool:
        """Carry out a verdict, or the one that the ledger has; return whether anything changed."""
        recorded = self.book.judged.get((place(seat.claim), seat.claim.trial_id, rung))
        if recorded is None and rung not in self.book.record(seat.claim).goals:
            return False  # it failed or diverged before the rung, and is settled as that
        if recorded is not None:
            goes = recorded == "promoted"
        if goes:
            ends = (*(self._rungs or ()), seat.claim.epochs)
            seat.until = ends[ends.index(rung) + 1]
            self.book.write_verdict("promoted", seat.claim, rung)
        else:
            seat.stopped = rung
            name = self.book.study.search.scheduler.name
            self.book.write_verdict("stopped", seat.claim, rung, reason=name)
            self._settle(seat)
        return True

    def _reached(self, seat: Seat, rung: int) -> bool:
        record = self.book.record(seat.claim)
        return rung in record.goals or record.status in DECIDED

    def _value_at(self, seat: Seat, rung: int) -> float:
        return self.book.value(self.book.record(seat.claim).goals.get(rung, ()))

    def _gate_closed(self, seat: Seat, rung: int) -> bool:
        """Whether the trial cannot be judged yet: what it tests has not begun to act (protocol 7)."""
        config = seat.claim.config.regularizer
        gated = getattr(config, "gate", "always") != "always"
        return gated and self.book.record(seat.claim).goals.gate_closed(rung)

    def _settle(self, seat: Seat) -> None:
        self.begin(seat)
        seat.settled = True
        self.open -= 1
