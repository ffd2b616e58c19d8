"""Options of the model: backbone, decoder, classifier."""

from __future__ import annotations

from dataclasses import dataclass

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option

DECODERS_OF: dict[str, tuple[str, ...]] = {
    "segmentation": (
        "fcn",
        "ocr",
        "nonlocal",
        "deeplabv3",
        "deeplabv3plus",
        "pspnet",
        "fpn",
        "upernet",
        "segformer",
        "linear",
    ),
    "classification": ("pool",),
}
"""Task of a data set -> the decoders that fit it."""

DECODERS = tuple(name for names in DECODERS_OF.values() for name in names)
POOLED = ("deeplabv3", "deeplabv3plus", "upernet")
"""Decoders that pool an image to one pixel before a BatchNorm."""

AUXILIARY = ("ocr",)
"""Decoders with auxiliary logits."""


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """A feature extractor, a decoder and a classifier.

    ``backbone`` is the name of a timm model, of an encoder of segmentation-models-pytorch (mit_b0 to mit_b5)
    or cifar_resnet32. ``output_stride`` keeps its last maps at stride 8 or 16 and dilates instead (``null``:
    as the network comes, 32 for most).

    ``feature_dim`` is D, the channels that enter the classifier; ``null`` keeps the decoder's own width: for
    fcn that of the backbone's concatenated branches (HRNet-W48: 720), for ocr, nonlocal and pspnet 512, for
    deeplabv3, deeplabv3plus, upernet and segformer 256, for fpn 128, for linear and pool the backbone's.

    ``pretrained`` loads the published weights of the backbone. Images are normalised with what those weights
    saw (``sarx.models.pretrained.model_mean_std``); without them, with the data set's mean and deviation.

    ``auxiliary_weight`` is that of the task loss on the auxiliary logits, where a decoder has such (ocr).

    ``classifier`` is a trained linear layer, a fixed one whose rows form a simplex equiangular tight frame
    (Yang et al. 2022), or the nearest of ``prototypes_per_class`` prototypes (ProtoSeg, Zhou et al. 2022),
    which only ``regularizer: protoseg`` moves.
    """

    name: str = option("", identity=False)  # a label; what is built is said below
    backbone: str = "test_efficientnet"
    output_stride: int | None = option(None, low=8, high=16)
    decoder: str = option("fcn", choices=DECODERS)
    feature_dim: int | None = option(None, low=2, high=8192)
    dropout: float = option(0.0, low=0.0, below=1.0)
    auxiliary_weight: float = option(0.4, low=0.0, high=100.0)
    pretrained: bool = False
    classifier: str = option("linear", choices=("linear", "simplex_etf", "prototypes"))
    prototypes_per_class: int = option(10, low=1, high=100)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "model")
        if self.output_stride not in (None, 8, 16):
            raise UserError(
                f"{self.output_stride} is not one of null, 8, 16 (null: as the backbone comes)",
                key="model.output_stride",
            )

    @property
    def fewest_images(self) -> int:
        """Return how many images a micro-batch must have: 2 where a BatchNorm sees one pixel of each."""
        return 2 if self.decoder in POOLED else 1

    def check_decoder(self) -> None:
        """Refuse options that the decoder cannot work with.

        Raises:
            UserError: With the reason and what would be right.
        """
        if self.decoder == "deeplabv3plus" and self.output_stride is None:
            raise UserError(
                "deeplabv3plus needs a last map of stride 8 or 16; set model.output_stride=16 (or 8)",
                key="model.output_stride",
            )
        if self.decoder == "fpn" and self.output_stride is not None:
            raise UserError(
                f"fpn needs maps of stride 4, 8, 16 and 32, and {self.output_stride} ends the strides there; "
                "set model.output_stride=null",
                key="model.output_stride",
            )
        if self.decoder == "linear" and self.feature_dim is not None:
            raise UserError(
                f"linear classifies the backbone's features as they are and has no layer that would give "
                f"{self.feature_dim} channels; set model.feature_dim=null",
                key="model.feature_dim",
            )
