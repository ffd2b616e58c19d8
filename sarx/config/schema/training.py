"""Options of the training loop."""

from __future__ import annotations

from dataclasses import dataclass

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """Length, batch, evaluation, arithmetic. An epoch is an evaluation interval of ``eval_every`` steps.

    ``batch_size`` is the batch of one optimizer step, over all ranks and the ``accumulation`` micro-batches
    that it is cut into. ``precision`` float16 and bfloat16 are autocast over float32 weights, float16 with a
    gradient scaler; float64 is double throughout. ``grad_clip`` is the largest norm of the whole gradient, 0
    for any. ``sync_bn`` takes batch statistics over all ranks, on CUDA alone. ``async_checkpoint`` writes
    checkpoints to disk while training goes on.

    With ``unlabelled_weight`` above 0 images without labels are learnt from as well, as many in a step as
    labelled ones: a teacher, the running mean of the model with ``teacher_decay``, labels what it is sure of
    by ``pseudo_confidence``; the loss on its labels counts so much, and the regularizer acts on both.
    """

    steps: int = option(600, low=1, high=10_000_000)
    eval_every: int = option(150, low=1, high=10_000_000)
    batch_size: int = option(16, low=2, high=65_536)
    device: str = option("cpu", choices=("cpu", "cuda"))
    images_logged: int = option(4, low=0, high=64, identity=False)
    accumulation: int = option(1, low=1, high=65_536)
    precision: str = option("float32", choices=("float32", "bfloat16", "float16", "float64"))
    channels_last: bool = True
    compile: bool = False
    grad_clip: float = option(0.0, low=0.0, high=1e9)
    sync_bn: bool = False
    async_checkpoint: bool = option(False, identity=False)
    unlabelled_weight: float = option(0.0, low=0.0, high=100.0)
    teacher_decay: float = option(0.99, low=0.0, below=1.0)
    pseudo_confidence: float = option(0.9, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        """Check every field, that epochs divide the length, and that every micro-batch gets a sample."""
        check_fields(self, "training")
        if self.steps % self.eval_every:
            raise UserError(
                f"{self.steps} is not a multiple of training.eval_every = {self.eval_every}",
                key="training.steps",
            )
        self.check_shares(1)
        if self.unlabelled_weight and self.accumulation > 1:
            raise UserError(
                f"{self.accumulation} micro-batches do not go with images without labels; set it to 1, or "
                "training.unlabelled_weight to 0",
                key="training.accumulation",
            )
        if self.sync_bn and self.device == "cpu":
            raise UserError(
                "synchronised batch normalisation runs on CUDA alone; set training.device=cuda or drop it",
                key="training.sync_bn",
            )

    def check_shares(self, ranks: int, fewest: int = 1) -> None:
        """Refuse a batch of which a micro-batch of one of the ranks would get too few samples.

        Args:
            ranks: How many share the batch.
            fewest: Samples that the model needs to learn from; over all ranks with ``sync_bn``.

        Raises:
            UserError: Naming training.batch_size.
        """
        apart = 1 if self.sync_bn else ranks
        needed = self.accumulation * max(ranks, fewest * apart)
        if self.batch_size < needed:
            why = f", each with {fewest} images or more, as the decoder needs" if fewest > 1 else ""
            raise UserError(
                f"{self.batch_size} samples are too few for {self.accumulation} micro-batches "
                f"(training.accumulation) on {ranks} rank{'s' * (ranks > 1)}{why}; take at least {needed}",
                key="training.batch_size",
            )

    @property
    def epochs(self) -> int:
        """Number of evaluation intervals."""
        return self.steps // self.eval_every
