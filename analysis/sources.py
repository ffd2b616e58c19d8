"""What tables and figures are made of: the ledger as read once, and the comparison computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from analysis.attempts import read_attempts
from analysis.caption import Facts
from analysis.comparison import Comparison
from analysis.opened import Study


@dataclass(frozen=True)
class Sources:
    """Everything that is read or computed before anything is shown.

    Attributes:
        folder: of the study; further files of trials lie in ``trials/<trial_id>/attempt-<n>/``.
        study: the plan.
        events: all events of the ledger, ``sarx.study.ledger_schema`` says which columns they have; metrics
            are packed (``analysis.packed``), ``trials.values`` and ``trials.metric_values`` unpack them.
        trials: the frame of ``results.confirm_trials``.
        metrics: the frame of ``results.confirm_metrics``.
        comparison: every row against the reference of its level.
        facts: what the ledger says besides the numbers.
    """

    folder: Path
    study: Study
    events: pl.DataFrame
    trials: pl.DataFrame
    metrics: pl.DataFrame
    comparison: Comparison
    facts: Facts

    @cached_property
    def attempts(self) -> list[dict[str, Any]]:
        """Return what the confirm trials of the plan recorded of their attempts."""
        own = self.trials.filter(pl.col("index") < self.study.seeds)["trial_id"].unique().sort()
        return read_attempts(self.folder, own.to_list())
