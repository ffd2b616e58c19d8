"""Options of the task losses."""

from __future__ import annotations

from dataclasses import dataclass

from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class CrossEntropyConfig:
    """Plain cross-entropy, a mean over the valid pixels."""

    name: str = "cross_entropy"

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "loss")


@dataclass(kw_only=True, slots=True)
class LogitAdjustedConfig:
    """Cross-entropy of logits shifted by tau times the log of the training prior (Menon et al. 2021)."""

    name: str = "logit_adjusted"
    tau: float = option(1.0, low=0.0, high=10.0)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "loss")


@dataclass(kw_only=True, slots=True)
class ClassBalancedConfig:
    """Cross-entropy weighted by inverse frequency or by the effective number (Cui et al. 2019).

    The effective number (1 - beta^n) / (1 - beta) saturates at 1 / (1 - beta) counts. Counts are pixels in
    segmentation, so the paper's .9999, meant for thousands of images, would weight all classes alike.
    """

    name: str = "class_balanced"
    weighting: str = option("effective", choices=("effective", "inverse"))
    beta: float = option(0.999999, low=0.0, below=1.0)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "loss")
