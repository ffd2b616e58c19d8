"""What every regularizer returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class RegularizerOutput:
    """A loss to add to the task loss, and what to log.

    Attributes:
        loss: Scalar, already weighted.
        metrics: Detached scalars. The keys are the same on every step, in train() and in eval().
    """

    loss: Tensor
    metrics: dict[str, Tensor]
