"""What an arm wants of a trial, and the piece of it that a host is given to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sarx.config.schema import TrainConfig
from sarx.config.schema.training import TrainingConfig
from sarx.study.design import Arm


@dataclass(frozen=True)
class Claim:
    """An arm's use of a trial; one trial may serve several claims.

    Attributes:
        arm: The arm.
        phase: search, finalist or confirm.
        index: Number of the search proposal, place among the finalists' runs, or number of the confirm seed.
        seed: Seed of the trial.
        trial_id: Identity of the trial.
        parameters: Searched options and their values; empty for the arm's default.
        make: Resolves the options; ``config`` keeps what it returns.
        training: Options of the training: how long it is, how often it is evaluated.
        repeat: Which of the arm's independent searches.
        proposal: Of a finalist or confirm claim: the search proposal whose parameters it has.
    """

    arm: Arm
    phase: str
    index: int
    seed: int
    trial_id: str
    parameters: Mapping[str, Any]
    make: Callable[[], TrainConfig] = field(compare=False, repr=False)
    training: TrainingConfig
    repeat: int = 0
    proposal: int | None = None

    @cached_property
    def config(self) -> TrainConfig:
        """Everything that is trained."""
        return self.make()

    @property
    def epochs(self) -> int:
        """Length of the trial."""
        return self.training.epochs

    @property
    def label(self) -> str:
        """What people read in logs: arm, phase, number."""
        search = f" of search {self.repeat}" if self.repeat and self.phase != "confirm" else ""
        return f"{self.arm.key} {self.phase} {self.index}{search}"


@dataclass(frozen=True)
class Segment:
    """A piece of work for a host: one trial from where its checkpoints end to epoch ``until``.

    ``start`` epochs are recorded already; checkpoints of attempts before ``since`` do not count.
    """

    trial_id: str
    attempt: int
    phase: str
    config: dict[str, Any]
    label: str
    index: int
    until: int
    start: int = 0
    since: int = 1
