"""What the parts of the engine share: the ledger, the records that it gives, and the making of claims."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sarx.config.compose import override
from sarx.config.schema import TrainConfig, as_dict, rebuild
from sarx.search.claims import Claim, Segment
from sarx.search.state import Record, Records
from sarx.study.design import Arm
from sarx.study.ledger import Event, Ledger, pack_metrics, pack_parameters
from sarx.study.ledger_files import collecting_nothing
from sarx.study.ledger_schema import CONFIRM, SEARCH
from sarx.study.schema import Study
from sarx.study.seeds import derive

IDENTITY = "1"
"""Version of what makes a ``trial_id`` of options: one more where equal options get another one."""

Place = tuple[str, str, int, int]
"""Arm, level, repeat, index."""


class Book:
    """A study's ledger as the engine uses it.

    Args:
        study: The study.
        ledger: The open ledger.
        identify: Gives the ``trial_id`` of a resolved config.
        code: Digest of what trains, recorded with every proposal and claim.
    """

    def __init__(
        self, study: Study, ledger: Ledger, identify: Callable[[TrainConfig], str], code: str = ""
    ) -> None:
        """Replay the ledger."""
        self.study = study
        self.ledger = ledger
        self.identify = identify
        self.code = code
        self.records = Records([goal.metric for goal in study.objective.goals], study.max_failures)
        self.proposed: dict[Place, Event] = {}
        self.claimed: dict[tuple[str, Place], Event] = {}
        self.selected: dict[Place, Event] = {}
        self.judged: dict[tuple[Place, str, int], str] = {}
        self._plain: dict[tuple[str, str], dict[str, Any]] = {}
        self._usuals: dict[tuple[str, str], TrainConfig] = {}
        self._bases: dict[tuple[str, str], str] = {}
        with collecting_nothing():
            for event in ledger.events:
                self.records.apply(event)
                self._note(event)
        self.records.settle()

    def record(self, claim: Claim) -> Record:
        """Return the record of a claimed trial."""
        return self.records.of(claim.trial_id)

    def value(self, goals: tuple[float, ...]) -> float:
        """Return the objective of a trial such that higher is better; ``-inf`` where there is none."""
        if not goals or not math.isfinite(goals[0]):
            return float("-inf")
        return goals[0] if self.study.objective.mode == "max" else -goals[0]

    def write(self, event: str, *, sync: bool = False, **columns: Any) -> None:
        """Append one event and bring the records up to date."""
        self.records.apply(self.ledger.append(event, sync=sync, **columns))

    def outcome(self, segment: Segment, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of an epoch; the number of workers only where it is not the planned one."""
        columns = {
            "trial_id": segment.trial_id,
            "attempt": segment.attempt,
            "phase": segment.phase,
            "epoch": result["epoch"],
            "step": result["step"],
            "duration_s": result["duration_s"],
            "metrics": pack_metrics(result["metrics"]),
        }
        workers = result.get("workers")
        fewer = workers is not None and workers != self.study.resources.num_workers
        return columns | ({"workers": workers} if fewer else {})

    def write_claim(self, event: str, claim: Claim, **payload: Any) -> None:
        """Append ``proposed`` or ``claimed``."""
        self.ledger.append(
            event,
            **self._where(claim),
            phase=claim.phase,
            seed=claim.seed,
            trial_id=claim.trial_id,
            parameters=pack_parameters(claim.parameters),
            payload=json.dumps({"code": self.code, **self._base_of(claim), **payload}),
        )

    def claim_once(self, claim: Claim, **payload: Any) -> None:
        """Append ``claimed``, unless the same claim on the same trial is there."""
        event = self.claimed.get((claim.phase, place(claim)))
        if event is None or event["trial_id"] != claim.trial_id:
            self.write_claim("claimed", claim, **payload)

    def write_verdict(self, event: str, claim: Claim, epoch: int, **payload: Any) -> None:
        """Append ``promoted`` or ``stopped`` at a rung, unless that very verdict is recorded."""
        key = (place(claim), claim.trial_id, epoch)
        if self.judged.get(key) == event:
            return
        self.judged[key] = event
        text: dict[str, Any] = {"payload": json.dumps(payload)} if payload else {}
        self.ledger.append(
            event, **self._where(claim), phase=claim.phase, trial_id=claim.trial_id, epoch=epoch, **text
        )

    def write_winner(self, claim: Claim, value: float, parameters: Mapping[str, Any]) -> None:
        """Append ``selected`` with the parameters passed on, unless the last one says the same."""
        at = (claim.arm.name, claim.arm.level, claim.repeat, 0)
        event = self.selected.get(at)
        metrics, packed = pack_metrics({self.study.objective.metric: value}), pack_parameters(parameters)
        said = {"trial_id": claim.trial_id, "index": claim.index, "metrics": metrics, "parameters": packed}
        if event is not None and said == {key: event.get(key) for key in said}:
            return
        self.selected[at] = self.ledger.append(
            "selected",
            sync=True,
            **self._where(claim),
            phase=SEARCH,
            trial_id=claim.trial_id,
            parameters=packed,
            metrics=metrics,
        )

    def claim(
        self,
        arm: Arm,
        phase: str,
        index: int,
        parameters: Mapping[str, Any],
        *,
        repeat: int = 0,
        proposal: int | None = None,
        seed: int | None = None,
        trial_id: str | None = None,
    ) -> Claim:
        """Make a claim: resolve its options and its identity.

        Args:
            arm: The arm.
            phase: search, finalist or confirm.
            index: Its number in the phase.
            parameters: Searched options and their values.
            repeat: Which of the arm's searches.
            proposal: Of a finalist or confirm claim: the search proposal that it takes up.
            seed: Seed of the trial; by default that of the phase and index.
            trial_id: Identity of the trial where it is known; its options are then resolved when asked for.
        """
        if seed is None:
            seed = self.seed(phase, index, repeat)

        def resolve() -> TrainConfig:
            return self._resolve(arm, phase, seed, parameters)

        training = self._usual(arm).training
        if trial_id is None:
            config = resolve()
            trial_id, training = self.identify(config), config.training
            resolve = partial(_same, config)
        return Claim(arm, phase, index, seed, trial_id, dict(parameters), resolve, training, repeat, proposal)

    def recorded(self, arm: Arm, event: Event, parameters: Mapping[str, Any]) -> Claim:
        """Make the claim of a search proposal again whose event is in the ledger.

        Where it was written under the same base (see ``base``), its identity is the recorded one: of a large
        study that is taken up again only the trials that still run have their options resolved.
        """
        index, repeat = event["index"], event.get("repeat") or 0
        known = None
        if not any(key.startswith(("data.", "training.")) for key in parameters):
            payload = json.loads(event.get("payload") or "{}")
            same = payload.get("base") == self.base(arm) and event["seed"] == self.seed(SEARCH, index, repeat)
            known = event["trial_id"] if same else None
        return self.claim(arm, SEARCH, index, parameters, repeat=repeat, trial_id=known)

    def base(self, arm: Arm) -> str:
        """Return a digest of what decides the identity of an arm's search trials besides parameters, seed."""
        key = (arm.level, arm.name)
        if key not in self._bases:
            resources = self.study.resources
            parts = [IDENTITY, self.identify(self._usual(arm))]
            parts += [
                str(resources.num_workers),
                str(resources.cpus_per_worker),
            ]  # some parameters let them in
            self._bases[key] = hashlib.sha256(":".join(parts).encode()).hexdigest()[:16]
        return self._bases[key]

    def _base_of(self, claim: Claim) -> dict[str, str]:
        return {"base": self.base(claim.arm)} if claim.phase == SEARCH else {}

    def _usual(self, arm: Arm) -> TrainConfig:
        """Return what the search trials of an arm have in common, with the default of every parameter."""
        key = (arm.level, arm.name)
        if key not in self._usuals:
            self._usuals[key] = self._resolve(arm, SEARCH, 0, {})
        return self._usuals[key]

    def _resolve(self, arm: Arm, phase: str, seed: int, parameters: Mapping[str, Any]) -> TrainConfig:
        pairs = {**(self.study.search.overrides if phase == SEARCH else {}), **parameters}
        own = {"seed": seed, "role": CONFIRM if phase == CONFIRM else SEARCH}
        values = override(self.plain(arm), {**pairs, **own})
        return rebuild(arm.config, values, {*own, *(key.partition(".")[0] for key in pairs)})

    def seed(self, phase: str, index: int, repeat: int = 0) -> int:
        """Return the seed of a search proposal, finalist seed or confirm seed; phases share none."""
        if phase == CONFIRM:
            return derive(self.study.seed, phase, index)
        return search_seed(self.study, index, repeat, phase)

    def plain(self, arm: Arm) -> dict[str, Any]:
        """Return the arm's options as nested plain values."""
        key = (arm.level, arm.name)
        if key not in self._plain:
            self._plain[key] = as_dict(arm.config)
        return self._plain[key]

    def _where(self, claim: Claim) -> dict[str, Any]:
        found: dict[str, Any] = {"arm": claim.arm.name, "level": claim.arm.level, "index": claim.index}
        return found | ({"repeat": claim.repeat} if claim.repeat else {})

    def _note(self, event: Event) -> None:
        kind = event["event"]
        if kind in ("proposed", "claimed", "selected", "promoted", "stopped"):
            at = (event["arm"], event["level"], event.get("repeat") or 0, event["index"])
            if kind == "proposed":
                self.proposed[at] = event
            elif kind == "claimed":
                self.claimed[event["phase"], at] = event
            elif kind == "selected":
                self.selected[(*at[:3], 0)] = event
            else:
                self.judged[at, event["trial_id"], event["epoch"]] = kind
        elif kind == "forgotten":
            gone = event["trial_id"]
            self.judged = {key: verdict for key, verdict in self.judged.items() if key[1] != gone}


def _same(config: TrainConfig) -> TrainConfig:
    return config


def failure(segment: Segment, reason: str, kind: str) -> dict[str, Any]:
    """Return the columns of a trial that diverged or an attempt that failed."""
    payload = json.dumps({"reason": reason, "kind": kind})
    return {
        "trial_id": segment.trial_id,
        "attempt": segment.attempt,
        "phase": segment.phase,
        "payload": payload,
    }


def search_seed(study: Study, index: int, repeat: int, phase: str = SEARCH) -> int:
    """Return the seed of a search proposal, or of a finalist's run."""
    return derive(study.seed, phase, "repeat", repeat, index) if repeat else derive(study.seed, phase, index)


def place(claim: Claim) -> Place:
    """Return where a claim stands."""
    return claim.arm.name, claim.arm.level, claim.repeat, claim.index
