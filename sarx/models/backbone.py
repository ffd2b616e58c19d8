"""Backbones as lists of feature maps, and the options that make timm's models give such."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sarx.config.errors import UserError
from sarx.models.backbone_names import CIFAR_RESNETS, MIX_TRANSFORMERS, check_backbone
from sarx.models.pretrained import check_published, loading

FIRST_STRIDE = 4
PROBE_SIZE = 64
"""Side in pixels of the shapes-only image that a new backbone is tried on."""

FAMILIES: dict[str, dict[str, Any]] = {
    "hrnet": {"feature_location": ""},
    "swin_": {"strict_img_size": False, "always_partition": True},
    "vit_": {"dynamic_img_size": True},
    "deit": {"dynamic_img_size": True},
}
"""Prefix of timm's names -> options. HRNets return their raw branches (W48: 48 + 96 + 192 + 384 = 720
channels), not timm's widened ones; transformers take images of any size, Swins with shifted windows in every
stage."""

FAILURES = (RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError)
"""What timm and torch raise where a network does not give what is asked of it."""


class Backbone(nn.Module):
    """Branches (B, channels[i], H/strides[i], W/strides[i]), finest first, of images (B, in, H, W).

    Attributes:
        multiple: Sides of images that are multiples of it give branches of exactly that size.
        least_multiple: Sides must be multiples of it for the network to run at all, where that was asked.
        isotropic: Whether all branches have one stride, as in a plain vision transformer.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        least_multiple: int = 1,
    ) -> None:
        """Keep the network and what is known of its branches."""
        super().__init__()
        self.network = network
        self.channels = channels
        self.strides = strides
        self.multiple = max(strides)
        self.least_multiple = least_multiple
        self.isotropic = len(set(strides)) == 1 and strides[0] > FIRST_STRIDE
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the branches."""
        maps = list(self.network(images))
        return [branch.permute(0, 3, 1, 2) for branch in maps] if self.channels_last else maps


class Choice(NamedTuple):
    """Options of ``timm.create_model`` that select the branches, and what is known of the result."""

    options: dict[str, Any]
    least_multiple: int


def build_backbone(
    name: str,
    in_channels: int,
    pretrained: bool = False,
    *,
    output_stride: int | None = None,
    final: bool = False,
) -> Backbone:
    """Create a network that returns its feature maps from stride 4 on.

    Args:
        name: One of ``backbone_names()``; timm's may carry the tag of a set of weights.
        in_channels: Channels of the images.
        pretrained: Load the library's published weights.
        output_stride: Stride of the last maps, 8 or 16; deeper stages are dilated instead. None: as it comes.
        final: Only what the network ends in is read: of one whose maps all have one stride, return the last
            after its final normalisation, instead of four at quarters of its depth; find ``least_multiple``.

    Raises:
        UserError: If there is no such network, it does not give such maps, or its weights cannot be had.
    """
    check_backbone(name.split(".", 1)[0])
    if name in MIX_TRANSFORMERS | CIFAR_RESNETS and output_stride is not None:
        raise UserError(
            f"{name} cannot keep its last maps at stride {output_stride}; set model.output_stride=null or "
            "choose a ResNet such as resnet50",
            key="model.output_stride",
        )
    if name in MIX_TRANSFORMERS:
        from sarx.models.mix_transformer import mix_transformer

        return Backbone(*mix_transformer(name, in_channels, pretrained))
    if name in CIFAR_RESNETS:
        from sarx.models.cifar_resnet import cifar_resnet

        if pretrained:
            check_published(name, None)
        return Backbone(*cifar_resnet(name, in_channels))
    choice = _choose_branches(name, in_channels, output_stride, final)
    network = _create(name, in_channels, pretrained, choice.options)
    return _wrap(network, choice.least_multiple)


@lru_cache(maxsize=64)  # half of the time that a small model takes to build
def _choose_branches(name: str, in_channels: int, output_stride: int | None, final: bool) -> Choice:
    """Find the options that select the branches, on a copy of the network without weights."""
    raw: dict[str, Any] = {"output_stride": output_stride} if output_stride is not None else {}
    for prefix, options in FAMILIES.items():
        if name.startswith(prefix):
            raw |= options
    strides: list[int] = []
    shapes: list[tuple[int, ...]] = []
    expected: list[tuple[int, ...]] = []
    refusal = f"{name} gives no feature map of stride {FIRST_STRIDE}"
    if output_stride is not None:
        refusal = f"{name} does not give feature maps that end at stride {output_stride}"
    cure = "choose a convolutional backbone such as lcnet_050, test_convnext or hrnet_w48"
    try:
        with torch.device("meta"), torch.no_grad():
            whole = _create(name, in_channels, False, raw)
            reductions = [int(item["reduction"]) for item in whole.feature_info.info]
            chosen = {**raw, **_selection(reductions, final)}
            probe = _wrap(_create(name, in_channels, False, chosen)).eval()
            strides, shapes = list(probe.strides), _shapes(probe, in_channels, PROBE_SIZE)
            expected = [
                (1, channels, PROBE_SIZE // stride, PROBE_SIZE // stride)
                for channels, stride in zip(probe.channels, strides, strict=True)
            ]
            least = _least_multiple(probe, in_channels) if final else probe.multiple
    except FAILURES as error:
        raise UserError(f"{refusal} ({error}); {cure}", key="model.backbone") from error
    if shapes != expected or (output_stride is not None and strides[-1] != output_stride):
        found = f"its maps have strides {strides} and shapes {shapes}"
        raise UserError(f"{refusal} ({found}); {cure}", key="model.backbone")
    return Choice(chosen, least)


def _selection(reductions: list[int], final: bool) -> dict[str, Any]:
    """Return the options that select maps: those from stride 4 on, or four of a network with one stride."""
    from timm.models._features import FeatureGetterNet  # exported nowhere else

    depth = len(reductions)
    if len(set(reductions)) > 1:
        return {"out_indices": tuple(i for i in range(depth) if reductions[i] >= FIRST_STRIDE)}
    if final:  # timm has no option for the final normalisation: give the wrapper that has it
        return {"out_indices": (depth - 1,), "feature_cls": partial(FeatureGetterNet, norm=True)}
    return {"out_indices": tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))}


def _least_multiple(probe: Backbone, in_channels: int) -> int:
    """Return of 1, 4 and the coarsest stride the least that sides must be multiples of to run at all."""
    for multiple in (1, FIRST_STRIDE):
        try:
            _shapes(probe, in_channels, PROBE_SIZE + multiple)
        except FAILURES:
            continue
        return multiple
    return probe.multiple


def _shapes(backbone: Backbone, in_channels: int, side: int) -> list[tuple[int, ...]]:
    return [tuple(branch.shape) for branch in backbone(torch.zeros(1, in_channels, side, side))]


def _wrap(network: Any, least_multiple: int = 1) -> Backbone:
    info = network.feature_info
    return Backbone(network, tuple(info.channels()), tuple(info.reduction()), least_multiple)


def _create(name: str, in_channels: int, pretrained: bool, options: dict[str, Any]) -> Any:
    import timm

    if not pretrained:
        return timm.create_model(name, features_only=True, in_chans=in_channels, **options)
    published = timm.get_pretrained_cfg(name)
    source = (published.hf_hub_id or published.url or published.file) if published is not None else None
    check_published(name, source)
    with loading(name, str(source)):
        return timm.create_model(name, pretrained=True, features_only=True, in_chans=in_channels, **options)


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Return the model with every batch normalisation over all ranks; state dict and weights are the same.

    timm's function keeps the activations that timm fuses into its layers, which torch's would drop.
    """
    from timm import layers

    converted: nn.Module = layers.convert_sync_batchnorm(model)  # type: ignore[attr-defined, no-untyped-call]
    return converted
