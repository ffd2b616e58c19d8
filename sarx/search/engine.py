"""The engine: decides which segment of which trial runs next, and writes every outcome to the ledger.

It knows nothing of Ray or torch: a host asks for segments, runs them, and reports what came out.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from sarx.config.errors import UserError, nearest
from sarx.config.schema import TrainConfig, as_dict
from sarx.search.arm_search import ArmSearch, Seat
from sarx.search.book import Book, failure
from sarx.search.choice import Choice
from sarx.search.claims import Claim, Segment
from sarx.search.common import CommonPoints
from sarx.search.state import DECIDED, FINISHED, NEW, RUNNING, Record
from sarx.study.design import Arm
from sarx.study.ledger import Ledger
from sarx.study.ledger_files import collecting_nothing
from sarx.study.ledger_schema import CONFIRM, FINALIST, SEARCH
from sarx.study.schema import Study

ORDER = {SEARCH: 0, FINALIST: 1, CONFIRM: 2}
Key = tuple[str, int]
"""Arm key and repeat."""
Turn = tuple[bool, int, int, int, int]


class Engine:
    """One study being run: claims, records, and what to do next.

    Args:
        study: The study.
        arms: Its arms.
        ledger: The open ledger; everything known is read from it and everything decided is written to it.
        identify: Gives the ``trial_id`` of a resolved config.
        code: Digest of what trains, recorded with every proposal and claim.
        only_arms: Names of the arms that may run now; None: all.
        only_phase: The phase that may run now, ``search`` (finalists included) or ``confirm``; None: all.
    """

    def __init__(
        self,
        study: Study,
        arms: list[Arm],
        ledger: Ledger,
        identify: Callable[[TrainConfig], str],
        code: str = "",
        *,
        only_arms: frozenset[str] | None = None,
        only_phase: str | None = None,
    ) -> None:
        """Take up the study where the ledger left it."""
        self.study, self.arms, self.ledger = study, arms, ledger
        self.only_arms, self.only_phase = only_arms, only_phase
        self.book = Book(study, ledger, identify, code)
        common = CommonPoints(study, self.book.proposed)
        self.searches: dict[Key, ArmSearch] = {
            (arm.key, repeat): ArmSearch(self.book, arm, repeat, common, self.trials_of(arm))
            for arm in arms
            for repeat in range(self.repeats_of(arm))
        }
        self.choices: dict[Key, Choice] = {}
        self.winners: dict[Key, Claim | None] = {}
        self.confirm: dict[str, list[Seat]] = {arm.key: [] for arm in arms}
        self.running = 0
        self._seats: dict[str, list[Seat]] = {}
        self._stopped: set[str] = set()
        self._open_confirm = 0
        self._ready: list[tuple[Turn, int, Seat]] = []
        self._positions = {arm.key: position for position, arm in enumerate(arms)}
        self._order = itertools.count()
        with collecting_nothing():
            for search in self.searches.values():
                self._advance(search)

    def next_segment(self) -> Segment | None:
        """Return the next segment, or None while nothing can start; ``done`` tells the two apart."""
        while self._ready:
            seat = heapq.heappop(self._ready)[-1]
            if self._waits(seat):
                return self._start(seat, self.book.record(seat.claim))
        return None

    @property
    def done(self) -> bool:
        """Whether nothing that may run now is left to run."""
        searching = any(
            key not in self.winners and self._may_run(search.arm, SEARCH)
            for key, search in self.searches.items()
        )
        return not (searching or self.running or self._open_confirm)

    @property
    def held_back(self) -> list[str]:
        """Arms of which something is left that may not run now, once ``done``: ``--arms``, ``--phase``."""
        found = []
        for arm in self.arms:
            open_searches = any(
                key not in self.winners and (search.arm.key == arm.key or self._follows(arm, search.arm))
                for key, search in self.searches.items()
            )
            if open_searches or not all(seat.settled for seat in self.confirm[arm.key]):
                found.append(arm.key)
        return found

    @property
    def incomplete(self) -> list[str]:
        """Arms without a winner, or with a search or confirm trial that failed for good or never ran."""
        return [arm.key for arm in self.arms if not self._complete(arm)]

    @property
    def finished_trials(self) -> tuple[int, int]:
        """How many trials are finished, and how many of them count; all while a winner is not known yet."""
        finished = [trial for trial, record in self.records.items() if record.status == FINISHED]
        if len(self.winners) < len(self.searches):
            return len(finished), len(finished)
        return len(finished), sum(trial in self._seats for trial in finished)

    def record(self, claim: Claim) -> Record:
        """Return the record of a claimed trial."""
        return self.book.record(claim)

    @property
    def records(self) -> Mapping[str, Record]:
        """All trials that the ledger knows, by identity."""
        return self.book.records.by_id

    def claim_of(self, segment: Segment) -> Claim:
        """Return the first claim on a trial."""
        return min((seat.claim for seat in self._seats[segment.trial_id]), key=self._turn)

    def queue(self) -> list[Claim]:
        """Return all claims in the order in which they may start: by phase, then index, arms interleaved."""
        return sorted((seat.claim for seats in self._seats.values() for seat in seats), key=self._turn)

    def trials_of(self, arm: Arm) -> int:
        """Search trials of one search of an arm: one where there is nothing to search."""
        return self.study.search.trials_per_arm if arm.space else 1

    def repeats_of(self, arm: Arm) -> int:
        """Independent searches of an arm; one where there is nothing to search, none where others search."""
        if self.study.search.scope == "shared" and arm.name != self.study.search.tune_on:
            return 0
        return self.study.search.repeats if arm.space else 1

    # ---------------------------------------------------------------- what came out

    def epoch_done(self, segment: Segment, result: Mapping[str, Any]) -> None:
        """Record an epoch that is not the last of its segment."""
        if self._current(segment):
            self._check_objective(segment, result)
            self.book.write("epoch", **self.book.outcome(segment, result))

    def rung_reached(self, segment: Segment, result: Mapping[str, Any]) -> None:
        """Record the last epoch of a segment that ends before its trial does."""
        self._end(segment, "rung", **self.book.outcome(segment, result), checked=result)

    def finished(self, segment: Segment, result: Mapping[str, Any]) -> None:
        """Record the last epoch of a trial; from here on it never runs again."""
        self._end(segment, "trial_finished", **self.book.outcome(segment, result), checked=result)

    def diverged(self, segment: Segment, reason: str, epoch: int) -> None:
        """Record a trial whose numbers became non-finite; it is a result, not an error."""
        self._end(segment, "diverged", epoch=epoch, **failure(segment, reason, "diverged"))

    def failed(self, segment: Segment, reason: str, kind: str = "crashed") -> None:
        """Record an attempt that broke; the trial is free again while the study allows retries."""
        self._end(segment, "failed", **failure(segment, reason, kind))

    def stopped(self, trial_id: str) -> bool:
        """Return whether every claim on a trial was stopped early."""
        seats = self._seats.get(trial_id, [])
        return bool(seats) and all(seat.settled and seat.stopped is not None for seat in seats)

    def spent(self) -> tuple[int, float]:
        """Return the trials decided or stopped early, and the GPU hours used, over all starts."""
        records, resources = self.book.records, self.study.resources
        gpus = resources.gpus_per_worker * resources.num_workers
        return len(self._stopped) + records.decided, records.seconds / 3600 * gpus

    def _end(
        self, segment: Segment, event: str, checked: Mapping[str, Any] | None = None, **columns: Any
    ) -> None:
        if not self._current(segment):
            return
        if checked is not None:
            self._check_objective(segment, checked)
        self.book.write(event, sync=True, **columns)
        self.running -= 1
        self._moved(list(self._seats[segment.trial_id]))

    def _current(self, segment: Segment) -> bool:
        record = self.records[segment.trial_id]
        if record.attempts == segment.attempt and record.status == RUNNING:
            return True
        self.book.write("dropped", trial_id=segment.trial_id, attempt=segment.attempt, phase=segment.phase)
        return False

    def _check_objective(self, segment: Segment, result: Mapping[str, Any]) -> None:
        wanted, metrics = self.study.objective.metric, result["metrics"]
        if segment.phase != CONFIRM and wanted not in metrics:
            known = [name for name in metrics if name.startswith("val/")]
            raise UserError(
                f"trials have no metric {wanted!r}; {nearest(wanted, known)}", key="objective.metric"
            )

    # ---------------------------------------------------------------- from one state to the next

    def _start(self, seat: Seat, record: Record) -> Segment:
        claim, config = seat.claim, as_dict(seat.claim.config)  # may be refused: nothing is written yet
        until = max(other.until for other in self._seats[claim.trial_id] if not other.settled)
        self.book.write(
            "trial_started",
            trial_id=claim.trial_id,
            attempt=record.attempts + 1,
            phase=claim.phase,
            epoch=record.epoch,
            payload=json.dumps({"until": until}),
        )
        self.running += 1
        if isinstance(seat.home, ArmSearch):
            seat.home.begin(seat)
            self._advance(seat.home)
        return Segment(
            trial_id=claim.trial_id,
            attempt=record.attempts,
            phase=claim.phase,
            config=config,
            label=claim.label,
            index=claim.index,
            until=until,
            start=record.epoch,
            since=record.since,
        )

    def _moved(self, seats: list[Seat]) -> None:
        """Carry on from seats whose trial has moved."""
        for home in self._carry(seats):
            if isinstance(home, ArmSearch):
                self._advance(home)
            elif isinstance(home, Choice):
                self._choose(home)

    def _carry(self, seats: list[Seat]) -> list[object]:
        """Judge and settle seats, and all that follows from it; return the searches and choices concerned."""
        homes: dict[int, object] = {}
        while seats:
            seat = seats.pop(0)
            homes[id(seat.home)] = seat.home
            if isinstance(seat.home, ArmSearch):
                seats += [other for other in seat.home.judge(seat) if other is not seat]
            elif not seat.settled and self.book.record(seat.claim).status in DECIDED:
                self._settle(seat)
            if self._waits(seat) and self._may_run(seat.claim.arm, seat.claim.phase):
                heapq.heappush(self._ready, (self._turn(seat.claim), next(self._order), seat))
            self._count_stopped(seat)
        return list(homes.values())

    def _count_stopped(self, seat: Seat) -> None:
        """Keep the set of trials that were stopped early and have no outcome of their own."""
        trial_id, ended = seat.claim.trial_id, self.book.record(seat.claim).status in DECIDED
        (self._stopped.add if self.stopped(trial_id) and not ended else self._stopped.discard)(trial_id)

    def _settle(self, seat: Seat) -> None:
        """Settle a finalist or confirm seat."""
        seat.settled = True
        if isinstance(seat.home, Choice):
            seat.home.open -= 1
        else:
            self._open_confirm -= self._may_run(seat.claim.arm, CONFIRM)

    def _turn(self, claim: Claim) -> Turn:
        """Return what decides when a claim comes: its phase, then its index, so that arms interleave.

        Arms of which it is known what they should reach come before all others.
        """
        later = claim.arm.name not in self.study.report.orientation
        return later, ORDER[claim.phase], claim.index, claim.repeat, self._positions[claim.arm.key]

    def _waits(self, seat: Seat) -> bool:
        """Whether a seat's trial could start now."""
        record = self.book.record(seat.claim)
        return not seat.settled and record.status == NEW and seat.until > record.epoch

    def _add(self, seats: list[Seat]) -> None:
        """Take up new seats."""
        for seat in seats:
            if seat.same_as is None:
                self._seats.setdefault(seat.claim.trial_id, []).append(seat)
        self._carry(list(seats))

    def _advance(self, search: ArmSearch) -> None:
        """Propose as far as possible; when the search is over, choose."""
        while seats := search.next_batch():
            self._add(seats)
        key = (search.arm.key, search.repeat)
        if search.done and key not in self.choices:
            self.choices[key] = choice = Choice(self.book, search)
            self._add(choice.seats)
            self._choose(choice)

    def _choose(self, choice: Choice) -> None:
        if not choice.done or choice.key in self.winners:
            return
        self.winners[choice.key] = winner = choice.winner()
        if winner is None:
            return
        for arm in self.arms:
            if arm.key == winner.arm.key or self._follows(arm, winner.arm):
                self._confirm(arm, winner)

    def _follows(self, arm: Arm, tuned: Arm) -> bool:
        shared = self.study.search.scope == "shared"
        return shared and arm.level == tuned.level and arm.name != tuned.name

    def _confirm(self, arm: Arm, winner: Claim) -> None:
        """Claim the confirm seeds that go to the winner of a search."""
        repeats = max(1, self.repeats_of(winner.arm))
        parameters = self.searches[winner.arm.key, winner.repeat].chosen(winner)
        if arm.key != winner.arm.key:
            parameters = {key: value for key, value in parameters.items() if key in arm.takes}
        seats = []
        for k in range(winner.repeat, self.study.confirm.seeds, repeats):
            claim = self.book.claim(arm, CONFIRM, k, parameters, repeat=winner.repeat, proposal=winner.index)
            self.book.claim_once(claim)
            seats.append(Seat(claim, claim.epochs))
        self._open_confirm += len(seats) * self._may_run(arm, CONFIRM)
        self.confirm[arm.key] = sorted([*self.confirm[arm.key], *seats], key=lambda seat: seat.claim.index)
        self._add(seats)

    def _may_run(self, arm: Arm, phase: str) -> bool:
        phase = SEARCH if phase == FINALIST else phase
        return (self.only_arms is None or arm.name in self.only_arms) and self.only_phase in (None, phase)

    def _complete(self, arm: Arm) -> bool:
        searches = [self.searches[arm.key, r] for r in range(self.repeats_of(arm))]
        seats = [*self.confirm[arm.key], *(seat for search in searches for seat in search.seats)]
        if len(self.confirm[arm.key]) < self.study.confirm.seeds:
            return False
        return all(
            seat.settled and self.book.record(seat.claim).status != "failed"
            for seat in seats
            if seat.same_as is None
        )
