"""Options of the data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class DigitScenesConfig:
    """Embedded long-tailed scenes of handwritten digits (segmentation, 11 classes).

    Of the training scenes the first ``labelled_share`` have labels; the others are there for
    ``training.unlabelled_weight``. Scores are taken on the first ``num_eval`` of 500 scenes.
    """

    task: ClassVar[str] = "segmentation"
    num_classes: ClassVar[int] = 11
    name: str = "digit_scenes"
    imbalance: float = option(20.0, low=1.0, high=1000.0)
    eval_imbalance: float = option(1.0, low=1.0, high=1000.0)
    num_train: int = option(2000, low=16, high=100_000)
    selection: str = option("val", choices=("val", "report"))
    labelled_share: float = option(1.0, above=0.0, high=1.0)
    num_eval: int = option(500, low=16, high=500)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "data")


@dataclass(kw_only=True, slots=True)
class DigitsLTConfig:
    """The same digits as long-tailed classification (10 classes).

    Scores are taken on the first ``num_eval`` of 1000 images.
    """

    task: ClassVar[str] = "classification"
    num_classes: ClassVar[int] = 10
    name: str = "digits_lt"
    imbalance: float = option(20.0, low=1.0, high=1000.0)
    eval_imbalance: float = option(1.0, low=1.0, high=1000.0)
    num_train: int = option(2000, low=16, high=100_000)
    selection: str = option("val", choices=("val", "report"))
    num_eval: int = option(1000, low=16, high=1000)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "data")
