"""An arm: one row of the ablation table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sarx.config.schema import TrainConfig
from sarx.study.space import Parameter

MAX_ARMS = 1000


@dataclass(frozen=True)
class Arm:
    """One row of the ablation table: what is fixed, and what remains to be searched.

    Attributes:
        name: Its name, unique within a level.
        level: Factor levels such as ``model=fcn_lcnet_050``; empty without factors.
        overrides: What the factor levels and the arm itself set.
        config: All options, the searched ones at their default.
        space: Parameters that its search tunes.
        warnings: What a reader of the plan must know.
        levels_of: Component -> level, of an arm that a design made; empty for others.
        takes: Searched options whose values it takes from ``search.tune_on`` under ``scope: shared``.
    """

    name: str
    level: str
    overrides: dict[str, Any]
    config: TrainConfig
    space: tuple[Parameter, ...]
    warnings: tuple[str, ...]
    levels_of: Mapping[str, str] = field(default_factory=dict)
    takes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of the arm with its factor levels, unique in the study."""
        return f"{self.level}/{self.name}" if self.level else self.name
