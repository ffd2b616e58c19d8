"""Options of the training loop."""

from __future__ import annotations

from dataclasses import dataclass

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """Length, batch and evaluation rhythm. An epoch is one evaluation interval of ``eval_every`` steps."""

    steps: int = option(600, low=1, high=10_000_000)
    eval_every: int = option(150, low=1, high=10_000_000)
    batch_size: int = option(16, low=2, high=65_536)
    device: str = option("cpu", choices=("cpu", "cuda"))
    images_logged: int = option(4, low=0, high=64, identity=False)

    def __post_init__(self) -> None:
        """Check every field and that epochs divide the training length."""
        check_fields(self, "training")
        if self.steps % self.eval_every:
            raise UserError(
                f"{self.steps} is not a multiple of training.eval_every = {self.eval_every}",
                key="training.steps",
            )

    @property
    def epochs(self) -> int:
        """Number of evaluation intervals."""
        return self.steps // self.eval_every
