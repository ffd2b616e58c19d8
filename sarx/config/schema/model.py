"""Options of the model: backbone, decoder, classifier."""

from __future__ import annotations

from dataclasses import dataclass

from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """A timm feature extractor, a decoder and a classifier.

    ``feature_dim`` is D, the channels that enter the classifier; ``null`` keeps the width that the backbone's
    concatenated branches have (HRNet-W48: 720). ``classifier`` is a trained linear layer, a fixed one whose
    rows form a simplex equiangular tight frame (Yang et al. 2022), or the nearest of ``prototypes_per_class``
    prototypes (ProtoSeg, Zhou et al. 2022), which only ``regularizer: protoseg`` moves.
    """

    name: str = option("", identity=False)  # a label; what is built is said below
    backbone: str = "test_efficientnet"
    decoder: str = option("fcn", choices=("fcn", "pool"))
    feature_dim: int | None = option(None, low=2, high=8192)
    dropout: float = option(0.0, low=0.0, below=1.0)
    pretrained: bool = False
    classifier: str = option("linear", choices=("linear", "simplex_etf", "prototypes"))
    prototypes_per_class: int = option(10, low=1, high=100)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "model")
