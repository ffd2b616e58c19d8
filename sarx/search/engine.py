"""The engine: decides which segment of which trial runs next, and writes every outcome to the ledger.

It knows nothing of Ray or torch: a host asks for segments, runs them, and reports what came out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sarx.config.compose import override
from sarx.config.errors import UserError, nearest
from sarx.config.schema import TrainConfig, as_dict, build
from sarx.search.propose import propose
from sarx.search.state import DECIDED, FINISHED, NEW, RUNNING, Record, apply, replay
from sarx.study.design import Arm
from sarx.study.ledger import Event, Ledger, of_kind, pack_metrics, pack_parameters, unpack_parameters
from sarx.study.ledger_schema import CONFIRM, SEARCH
from sarx.study.schema import Study
from sarx.study.seeds import derive
from sarx.study.space import Parameter, contains


@dataclass(frozen=True)
class Claim:
    """An arm's use of a trial: its search proposal ``index``, or its confirm seed number ``index``."""

    arm: Arm
    phase: str
    index: int
    seed: int
    trial_id: str
    parameters: Mapping[str, Any]
    config: TrainConfig


@dataclass(frozen=True)
class Segment:
    """A piece of work for a host: one trial from where its checkpoints end to its last epoch."""

    trial_id: str
    attempt: int
    phase: str
    config: dict[str, Any]
    label: str
    index: int


class Engine:
    """One study being run: claims, records, and what to do next.

    Args:
        study: The study.
        arms: Its arms.
        ledger: The open ledger; everything known is read from it and everything decided is written to it.
        identify: Gives the ``trial_id`` of a resolved config.
        code: Digest of what trains, recorded with every proposal and claim.
    """

    def __init__(
        self,
        study: Study,
        arms: list[Arm],
        ledger: Ledger,
        identify: Callable[[TrainConfig], str],
        code: str = "",
    ) -> None:
        """Take up the study where the ledger left it."""
        self.study = study
        self.arms = arms
        self.ledger = ledger
        self.identify = identify
        self.code = code
        self.records: dict[str, Record] = replay(ledger.events, study.max_failures)
        self.search: dict[str, list[Claim]] = {arm.key: [] for arm in arms}
        self.confirm: dict[str, list[Claim]] = {arm.key: [] for arm in arms}
        self.winners: dict[str, Claim | None] = {}
        self._proposed = _latest(ledger.events, "proposed")
        self._selected = {
            (event["arm"], event["level"]): event for event in of_kind(ledger.events, "selected")
        }
        self._claimed = _latest(ledger.events, "claimed")
        self._space = tuple(study.search.parameters.values())
        self._points: dict[int, dict[str, Any]] = {}
        self.advance()

    # ---------------------------------------------------------------- what to do

    def next_segment(self) -> Segment | None:
        """Return the next segment to run, or None while nothing can start; ``done`` tells the two apart."""
        for claim in self.queue():
            if self.record(claim).status == NEW:
                return self.start(claim)
        return None

    def queue(self) -> list[Claim]:
        """Return all claims in the order in which they may start: search before confirm, arms interleaved."""
        claims = [claim for claims in (*self.search.values(), *self.confirm.values()) for claim in claims]
        return sorted(claims, key=lambda claim: (claim.phase == CONFIRM, claim.index))

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return all(self.record(claim).status in DECIDED for claim in self.queue()) and len(
            self.winners
        ) == len(self.arms)

    @property
    def incomplete(self) -> list[str]:
        """Arms without a winner, or with a search or confirm trial that failed for good."""
        missing = []
        for arm in self.arms:
            claims = self.confirm[arm.key] and [*self.search[arm.key], *self.confirm[arm.key]]
            if not claims or any(self.record(claim).status not in DECIDED - {"failed"} for claim in claims):
                missing.append(arm.key)
        return missing

    def record(self, claim: Claim) -> Record:
        """Return the record of a claimed trial."""
        return self.records.setdefault(claim.trial_id, Record(claim.trial_id))

    def claim_of(self, segment: Segment) -> Claim:
        """Return the first claim on a segment's trial."""
        return next(claim for claim in self.queue() if claim.trial_id == segment.trial_id)

    # ---------------------------------------------------------------- what came out

    def start(self, claim: Claim) -> Segment:
        """Record a new attempt at a trial and return it as a segment."""
        attempt = self.record(claim).attempts + 1
        epoch = self.record(claim).epoch
        self._write("trial_started", trial_id=claim.trial_id, attempt=attempt, phase=claim.phase, epoch=epoch)
        label = f"{claim.arm.key} {claim.phase} {claim.index}"
        return Segment(claim.trial_id, attempt, claim.phase, as_dict(claim.config), label, claim.index)

    def epoch_done(self, segment: Segment, result: Mapping[str, Any]) -> None:
        """Record an epoch that is not the last."""
        if self._current(segment):
            self._check_objective(segment, result)
            self._write("epoch", **_outcome(segment, result))

    def finished(self, segment: Segment, result: Mapping[str, Any]) -> None:
        """Record the last epoch of a trial; from here on it never runs again."""
        if self._current(segment):
            self._check_objective(segment, result)
            self._write("trial_finished", sync=True, **_outcome(segment, result))
            self.advance()

    def diverged(self, segment: Segment, reason: str, epoch: int) -> None:
        """Record a trial whose numbers became non-finite; it is a result, not an error."""
        if self._current(segment):
            self._write("diverged", sync=True, epoch=epoch, **_failure(segment, reason, "diverged"))
            self.advance()

    def failed(self, segment: Segment, reason: str, kind: str = "crashed") -> None:
        """Record an attempt that broke; the trial is free again while the study allows retries."""
        if self._current(segment):
            self._write("failed", sync=True, **_failure(segment, reason, kind))
            self.advance()

    def _current(self, segment: Segment) -> bool:
        record = self.records[segment.trial_id]
        if record.attempts == segment.attempt and record.status == RUNNING:
            return True
        self._write("dropped", trial_id=segment.trial_id, attempt=segment.attempt, phase=segment.phase)
        return False

    def _check_objective(self, segment: Segment, result: Mapping[str, Any]) -> None:
        wanted, metrics = self.study.objective.metric, result["metrics"]
        if segment.phase == SEARCH and wanted not in metrics:
            known = [name for name in metrics if name.startswith("val/")]
            raise UserError(
                f"trials have no metric {wanted!r}; {nearest(wanted, known)}", key="objective.metric"
            )

    def _write(self, event: str, *, sync: bool = False, **columns: Any) -> None:
        apply(self.records, self.ledger.append(event, sync=sync, **columns), self.study.max_failures)

    # ---------------------------------------------------------------- proposals, winners, seeds

    def advance(self) -> None:
        """Propose, choose winners and claim confirm trials as far as the results allow."""
        for arm in self.arms:
            self._propose(arm)
            if arm.key not in self.winners and self._search_decided(arm):
                self.winners[arm.key] = winner = self._choose(arm)
                if winner is not None:
                    self.confirm[arm.key] = [
                        self._confirm(arm, winner, k) for k in range(self.study.confirm.seeds)
                    ]

    def trials_of(self, arm: Arm) -> int:
        """Search trials of an arm: one where there is nothing to search."""
        return self.study.search.trials_per_arm if arm.space else 1

    def _propose(self, arm: Arm) -> None:
        claims, batch = self.search[arm.key], self.study.search.batch
        while len(claims) < self.trials_of(arm):
            waits = self.study.search.waits
            if waits and not all(self.record(claim).status in DECIDED for claim in claims):
                return
            start = len(claims)
            fresh = [self._proposal(arm, i) for i in range(start, min(start + batch, self.trials_of(arm)))]
            for claim, known in fresh:
                if not known:
                    self._claim_event("proposed", claim)
                claims.append(claim)
            if not all(known for _, known in fresh):
                self.ledger.sync()

    def _proposal(self, arm: Arm, index: int) -> tuple[Claim, bool]:
        seed = derive(self.study.seed, SEARCH, index)
        event = self._proposed.get((arm.name, arm.level, index))
        if event is not None:
            stored = unpack_parameters(event["parameters"])
            if _fits(stored, arm.space, index):
                claim = self._claim(arm, SEARCH, index, seed, stored)
                if claim.trial_id == event["trial_id"]:
                    return claim, True
        own = {p.key: value for p in arm.space if (value := self._point(index).get(p.key)) is not None}
        return self._claim(arm, SEARCH, index, seed, own), False

    def _point(self, index: int) -> dict[str, Any]:
        """Return the common proposal of all arms: what earlier starts proposed at this index stays."""
        if index not in self._points:
            point = propose(self._space, self.study.search.sampler.name, seed=self.study.seed, index=index)
            for event in self._proposed.values():
                if event["index"] == index and event["seed"] == derive(self.study.seed, SEARCH, index):
                    stored = unpack_parameters(event["parameters"])
                    point |= {p.key: stored[p.key] for p in self._space if contains(p, stored.get(p.key))}
            self._points[index] = point
        return self._points[index]

    def _claim(self, arm: Arm, phase: str, index: int, seed: int, parameters: Mapping[str, Any]) -> Claim:
        values = override(as_dict(arm.config), {**parameters, "seed": seed, "role": phase})
        config = build(values)
        return Claim(arm, phase, index, seed, self.identify(config), dict(parameters), config)

    def _claim_event(self, event: str, claim: Claim) -> None:
        self.ledger.append(
            event,
            arm=claim.arm.name,
            level=claim.arm.level,
            phase=claim.phase,
            index=claim.index,
            seed=claim.seed,
            trial_id=claim.trial_id,
            parameters=pack_parameters(claim.parameters),
            payload=json.dumps({"code": self.code}),
        )

    def _search_decided(self, arm: Arm) -> bool:
        claims = self.search[arm.key]
        return len(claims) == self.trials_of(arm) and all(
            self.record(claim).status in DECIDED for claim in claims
        )

    def _choose(self, arm: Arm) -> Claim | None:
        """Return the best finished trial, ties to the earlier proposal; None if none finished."""
        metric, sign = self.study.objective.metric, 1 if self.study.objective.mode == "max" else -1
        best: Claim | None = None
        best_value = -math.inf
        for claim in self.search[arm.key]:
            record = self.record(claim)
            value = sign * record.metrics.get(metric, math.nan) if record.status == FINISHED else math.nan
            if value > best_value:
                best, best_value = claim, value
        if best is None:
            return None
        event = self._selected.get((arm.name, arm.level))
        if event is None or event["trial_id"] != best.trial_id or event["index"] != best.index:
            self.ledger.append(
                "selected",
                sync=True,
                arm=arm.name,
                level=arm.level,
                phase=SEARCH,
                index=best.index,
                trial_id=best.trial_id,
                parameters=pack_parameters(best.parameters),
                metrics=pack_metrics({metric: sign * best_value}),
            )
        return best

    def _confirm(self, arm: Arm, winner: Claim, k: int) -> Claim:
        claim = self._claim(arm, CONFIRM, k, derive(self.study.seed, CONFIRM, k), winner.parameters)
        event = self._claimed.get((arm.name, arm.level, k))
        if event is None or event["trial_id"] != claim.trial_id:
            self._claim_event("claimed", claim)
        return claim


def _latest(events: list[Event], kind: str) -> dict[tuple[str, str, int], Event]:
    return {(event["arm"], event["level"], event["index"]): event for event in of_kind(events, kind)}


def _fits(parameters: Mapping[str, Any], space: tuple[Parameter, ...], index: int) -> bool:
    if index == 0 or not space:
        return not parameters
    return set(parameters) == {p.key for p in space} and all(contains(p, parameters[p.key]) for p in space)


def _outcome(segment: Segment, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trial_id": segment.trial_id,
        "attempt": segment.attempt,
        "phase": segment.phase,
        "epoch": result["epoch"],
        "step": result["step"],
        "duration_s": result["duration_s"],
        "metrics": pack_metrics(result["metrics"]),
    }


def _failure(segment: Segment, reason: str, kind: str) -> dict[str, Any]:
    return {
        "trial_id": segment.trial_id,
        "attempt": segment.attempt,
        "phase": segment.phase,
        "payload": json.dumps({"reason": reason, "kind": kind}),
    }
