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
    """Logits shifted by tau times the log of the training prior (Menon et al. 2021).

    ``when: training`` adds the shift inside the cross-entropy; ``post_hoc`` trains with plain cross-entropy
    and subtracts the shift from the logits that predict.
    """

    name: str = "logit_adjusted"
    tau: float = option(1.0, low=0.0, high=10.0)
    when: str = option("training", choices=("training", "post_hoc"))

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


@dataclass(kw_only=True, slots=True)
class OhemConfig:
    """Cross-entropy over the hard pixels alone (online hard example mining, Shrivastava et al. 2016).

    Pixels whose true class has a probability below ``threshold``, and never fewer than ``min_kept_share`` of
    the valid ones. The usual setting is .7 and 100,000 pixels, .095 of two crops of 512 x 1024.
    """

    name: str = "ohem"
    threshold: float = option(0.7, above=0.0, high=1.0)
    min_kept_share: float = option(0.1, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "loss")
