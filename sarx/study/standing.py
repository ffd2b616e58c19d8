"""Where a study stands, by its ledger alone: each trial, each claim, counts and failures."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sarx.config.errors import UserError, nearest
from sarx.study.ledger import Event
from sarx.study.ledger_schema import CONFIRM, FINALIST, SEARCH

PHASES = (SEARCH, FINALIST, CONFIRM)
FINISHED, STOPPED, RUNNING, WAITING = "finished", "stopped early", "running", "waiting"
DIVERGED, FAILED = "diverged", "failed"
STATUSES = (FINISHED, STOPPED, RUNNING, WAITING, DIVERGED, FAILED)
LOST = frozenset({STOPPED, DIVERGED, FAILED})
"""Statuses of search trials that can win nothing any more."""
FREE_OF_CHARGE = "preempted"
DEFAULT_FAILURES = 1
"""As in sarx.study.schema.Study."""


@dataclass(slots=True)
class Trial:
    """One trial: how its last attempt ended, and what it is for."""

    trial_id: str
    status: str = WAITING
    attempts: int = 0
    failures: int = 0
    kind: str = ""
    reason: str = ""
    uses: list[Use] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Use:
    """What a trial is for: an arm's search proposal, finalist run or confirm seed."""

    arm: str
    level: str
    phase: str
    repeat: int
    index: int

    @property
    def label(self) -> str:
        """What people read: arm, phase, number."""
        key = f"{self.level}/{self.arm}" if self.level else self.arm
        return f"{key} {self.phase} {self.index}" + (f" of search {self.repeat}" if self.repeat else "")


class Standing:
    """What the events of a ledger say.

    Args:
        events: All events, in order.

    Attributes:
        opening: Payload of the last start; None if there was none.
        trials: All trials that were claimed or started, by identity.
        claims: The trial of each claim; the last claim counts.
        last: Time of the last event.
        leaving: Time and reason of the last ``stopping``.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        """Replay the events."""
        self.opening: Mapping[str, Any] | None = None
        self.trials: dict[str, Trial] = {}
        self.claims: dict[Use, str] = {}
        self.last = 0.0
        self.leaving: tuple[float, str] | None = None
        self.ended = False
        self._payload = ""
        self._stopped: dict[tuple[Use, str], set[int]] = {}
        self._same: dict[Use, Use] = {}
        self._selected: set[tuple[str, str, int]] = set()
        for event in events:
            self._apply(event)
        self.opening = json.loads(self._payload) if self._payload else None
        self.max_failures = max_failures(self.opening or {})
        for use, trial_id in self.claims.items():
            self.trials[trial_id].uses.append(use)

    def _apply(self, event: Event) -> None:
        kind, self.last = event["event"], event["time"]
        if kind in ("trial_started", "trial_finished", "rung", "diverged", "failed", "forgotten", "retried"):
            self._move(self._trial(event["trial_id"]), kind, event)
        elif kind in ("proposed", "claimed", "promoted", "stopped"):
            repeat = 0 if event["phase"] == CONFIRM else event.get("repeat") or 0
            use = Use(event["arm"], event["level"], event["phase"], repeat, event["index"])
            if kind in ("proposed", "claimed"):
                self.claims[use] = self._trial(event["trial_id"]).trial_id
                same = _payload(event).get("same_as") if "same_as" in event.get("payload", "") else None
                self._same[use] = use if same is None else replace(use, index=same)
            else:
                at = self._stopped.setdefault((use, event["trial_id"]), set())
                (at.add if kind == "stopped" else at.discard)(event["epoch"])
        elif kind == "selected":
            self._selected.add((event["arm"], event["level"], event.get("repeat") or 0))
        elif kind == "stopping":
            self.leaving = (event["time"], str(_payload(event).get("reason", "")))
        if kind == "study_opened":
            self._payload, self.ended = event["payload"], False
        elif kind in ("study_finished", "forgotten", "retried"):
            self.ended = kind == "study_finished"

    def _trial(self, trial_id: str) -> Trial:
        found = self.trials.get(trial_id)
        if found is None:
            found = self.trials[trial_id] = Trial(trial_id)
        return found

    def _move(self, trial: Trial, kind: str, event: Event) -> None:
        if kind == "trial_started":
            trial.status, trial.attempts = RUNNING, max(trial.attempts, event["attempt"])
        elif kind == "forgotten":
            self.trials[trial.trial_id] = Trial(trial.trial_id, attempts=trial.attempts)
            for use, trial_id in [*self._stopped]:
                if trial_id == trial.trial_id:
                    del self._stopped[use, trial_id]
        elif kind == "retried":
            trial.failures = 0
            if trial.status == FAILED:
                trial.status = WAITING
        elif event["attempt"] == trial.attempts:
            trial.status = {"trial_finished": FINISHED, "rung": WAITING}.get(kind, kind)
            if kind in (DIVERGED, FAILED):
                said = _payload(event)
                trial.kind, trial.reason = str(said.get("kind", "crashed")), str(said.get("reason", ""))
                trial.failures += kind == FAILED and trial.kind != FREE_OF_CHARGE

    # ---------------------------------------------------------------- what follows from it

    def status(self, use: Use, driven: bool = True) -> str:
        """Return the status of a claim; without a driver nothing is running.

        A stopped trial is so for the arm that stopped it; a failed one only for good, else it waits; a
        proposal equal to an earlier one is what that is.
        """
        use = self._same[use]
        trial = self.trials[self.claims[use]]
        rungs = self._rungs
        stopped = self._stopped.get((use, trial.trial_id), set[int]())
        if trial.status != DIVERGED and (stopped if rungs is None else stopped & rungs):
            return STOPPED
        if trial.status == FAILED and trial.failures <= self.max_failures:
            return WAITING
        return WAITING if trial.status == RUNNING and not driven else trial.status

    @cached_property
    def current(self) -> list[Use]:
        """Claims that the last start still holds, in order of phase, index and arm."""
        searches = self._searches()
        seeds = self.opening["seeds"] if self.opening else 0
        runs = math.prod(self._finalists)
        held = []
        for use in self.claims:
            size, repeats = searches.get((use.arm, use.level), (0, -1))
            limit = {SEARCH: size, FINALIST: runs, CONFIRM: seeds if repeats >= 0 else 0}[use.phase]
            if use.index < limit and (use.phase == CONFIRM or use.repeat < repeats):
                held.append(use)
        order = {place: i for i, place in enumerate(searches)}
        return sorted(held, key=lambda u: (PHASES.index(u.phase), u.index, u.repeat, order[u.arm, u.level]))

    def _searches(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return for each arm and level of the last start the trials of a search, and how many searches."""
        if self.opening is None:
            return {}
        plan, per_arm = self.opening.get("plan", {}), self.opening["trials_per_arm"]
        found = {}
        for arm in self.opening["arms"]:
            size, repeats = (per_arm, plan.get("repeats") or 1) if arm["parameters"] else (1, 1)
            found[arm["arm"], arm["level"]] = (
                size,
                repeats if plan.get("tune_on") in (None, arm["arm"]) else 0,
            )
        return found

    @cached_property
    def _rungs(self) -> frozenset[int] | None:
        """Return the epochs at which the last start judges; None if it does not say."""
        rungs = (self.opening or {}).get("plan", {}).get("rungs")
        return None if rungs is None else frozenset(rungs)

    @property
    def _finalists(self) -> tuple[int, int]:
        """Return how many finalists a search has at most, and the runs of each."""
        terms = (self.opening or {}).get("plan", {}).get("finalists") or {}
        return int(terms.get("top", 0)), int(terms.get("seeds", 0))

    def counts(self, driven: bool = True) -> dict[str, Counter[str]]:
        """Return for each phase with trials how many have each status; what is not claimed yet waits."""
        found = {phase: Counter[str]() for phase in PHASES}
        for use in self.current:
            found[use.phase][self.status(use, driven)] += 1
        for phase, total in self._planned().items():
            found[phase][WAITING] += max(0, total - found[phase].total())
        return {phase: count for phase, count in found.items() if count.total()}

    def _planned(self) -> dict[str, int]:
        """Return the trials of each phase of the plan; a search without a winner has nothing to confirm."""
        if self.opening is None:
            return {}
        searches, tuned = self._searches(), self.opening.get("plan", {}).get("tune_on")
        found: dict[tuple[str, str, str, int], dict[int, str]] = {}
        for use in self.current:
            at = (use.phase, use.arm, use.level, use.repeat)
            found.setdefault(at, {})[use.index] = self.status(use)
        planned, lost = dict.fromkeys(PHASES, 0), set[tuple[str, str, int]]()
        for (arm, level), (size, repeats) in searches.items():
            planned[SEARCH] += size * repeats
            for place in ((arm, level, repeat) for repeat in range(repeats)):
                trials, runs = (found.get((phase, *place), {}) for phase in (SEARCH, FINALIST))
                if (len(trials) >= size and LOST.issuperset(trials.values())) or self._none_won(runs):
                    lost.add(place)
                elif not runs and place not in self._selected:
                    planned[FINALIST] += math.prod(self._finalists)
                planned[FINALIST] += len(runs)
        for arm, level in searches:
            source = (tuned or arm, level)
            repeats = max(1, searches.get(source, (0, 1))[1])
            planned[CONFIRM] += sum((*source, k % repeats) not in lost for k in range(self.opening["seeds"]))
        return planned

    def _none_won(self, runs: Mapping[int, str]) -> bool:
        """Return whether all finalists of a search have run and none finished on all of its seeds."""
        seeds = self._finalists[1]
        unlucky = {index // seeds for index, status in runs.items() if status in LOST}
        return bool(runs) and unlucky == {index // seeds for index in runs}

    def failed(self) -> list[Trial]:
        """Return the trials of current claims that failed for good."""
        found = {self.claims[use]: None for use in self.current if self.status(use) == FAILED}
        return [self.trials[trial_id] for trial_id in found]

    def resolve(self, prefix: str) -> Trial:
        """Return the trial whose identity begins so.

        Raises:
            UserError: If there is none, or more than one.
        """
        found = sorted(name for name in self.trials if name.startswith(prefix)) if prefix else []
        if not found:
            raise UserError(
                f"no trial of this study is called so; {nearest(prefix, self.trials)}", key=prefix
            )
        if len(found) > 1:
            shown = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
            raise UserError(f"{len(found)} trials begin so ({shown}); write more of it", key=prefix)
        return self.trials[found[0]]


def max_failures(opening: Mapping[str, Any]) -> int:
    """Return how many attempts of a trial may fail; what older starts do not say, file and command do."""
    plan = opening.get("plan", {})
    if "max_failures" in plan:
        return int(plan["max_failures"])
    given = re.findall(r"^max_failures:\s*(\d+)", str(opening.get("file", "")), flags=re.MULTILINE)
    given += re.findall(r"(?<![\w.-])max_failures=(\d+)", str(opening.get("command", "")))
    return int(given[-1]) if given else DEFAULT_FAILURES


def _payload(event: Event) -> Mapping[str, Any]:
    try:
        found = json.loads(event.get("payload") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
