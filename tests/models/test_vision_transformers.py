"""Plain vision transformers: the scale of their features, their pyramid, images of any size."""

from __future__ import annotations

import pytest
import torch
from model_files import config_of

from sarx.models import build_model
from sarx.models.backbone import build_backbone
from sarx.models.upernet import simple_pyramid
from sarx.regularizers import SemanticAnchorRegularizer


def linear_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(config_of("linear_test_vit"), in_channels=3, num_classes=5)


def test_features_of_the_linear_decoder_have_the_scale_of_layer_norm() -> None:
    model = linear_model()
    features = model(torch.randn(2, 3, 64, 96)).features.detach()
    assert features.shape == (2, 64, 4, 6)
    torch.testing.assert_close(features.mean(dim=1), torch.zeros(2, 4, 6), atol=1e-5, rtol=0)
    variance = features.var(dim=1, unbiased=False)
    torch.testing.assert_close(variance, torch.ones(2, 4, 6), atol=1e-3, rtol=0)
    assert (features < 0).float().mean() > 0.3  # no ReLU


def test_linear_classifies_what_the_network_ends_in() -> None:
    import timm

    model = linear_model().eval()
    torch.manual_seed(0)
    whole = timm.create_model("test_vit", in_chans=3, num_classes=0).eval()
    state = model.backbone.network.model.state_dict()
    assert state.keys() == whole.state_dict().keys()
    whole.load_state_dict(state)
    images = torch.randn(2, 3, 160, 160)
    tokens = whole.forward_features(images)[:, 1:]
    features = model(images).features
    torch.testing.assert_close(features, tokens.mT.unflatten(2, (10, 10)))
    torch.testing.assert_close(
        model(images).logits.permute(0, 2, 3, 1),
        features.permute(0, 2, 3, 1) @ model.classifier.weight[:, :, 0, 0].T + model.classifier.bias,
    )


@pytest.mark.parametrize("feature_norm", ["none", "layer", "l2"])
def test_sar_trains_on_the_linear_decoder(feature_norm: str) -> None:
    model = linear_model()
    regularizer = SemanticAnchorRegularizer(5, model.feature_dim, feature_norm=feature_norm, gate="always")
    labels = torch.randint(0, 5, (2, 64, 64))
    output = model(torch.randn(2, 3, 64, 64))
    result = regularizer(output.features, labels, model.classifier)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    assert result.metrics["train/pull_loss"] > 0
    embed = model.backbone.network.model.patch_embed.proj.weight
    assert embed.grad is not None
    assert embed.grad.abs().sum() > 0


def test_simple_pyramid() -> None:
    torch.manual_seed(1)
    maps = [torch.randn(2, 3, 4, 6) for _ in range(4)]
    fine, finer, same, coarse = simple_pyramid(maps)
    assert torch.equal(same, maps[2])
    assert fine.shape == (2, 3, 16, 24)
    assert finer.shape == (2, 3, 8, 12)
    means = maps[3].unflatten(2, (2, 2)).unflatten(4, (3, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(coarse, means)
    # bilinear without aligned corners: the two middle ones of eight lie 3/4 and 1/4 of the way
    row = finer[0, 0, 0]
    torch.testing.assert_close(row[5], 0.75 * maps[1][0, 0, 0, 2] + 0.25 * maps[1][0, 0, 0, 3])


def test_the_pyramid_of_an_odd_grid_rounds_up() -> None:
    maps = [torch.randn(1, 2, 1, 3) for _ in range(4)]
    assert [tuple(item.shape[2:]) for item in simple_pyramid(maps)] == [(4, 12), (2, 6), (1, 3), (1, 2)]


def test_taps_lie_at_quarters_of_the_depth() -> None:
    with torch.device("meta"):
        small = build_backbone("vit_small_patch16_224", 3)
        last = build_backbone("vit_small_patch16_224", 3, final=True)
    assert small.network.out_indices == [2, 5, 8, 11]
    assert last.network.out_indices == [11]
    assert small.channels == (384,) * 4
    assert small.isotropic
    assert last.isotropic


@pytest.mark.parametrize("name", ["upernet_test_vit", "linear_test_vit"])
def test_images_of_several_sizes(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(config_of(name), in_channels=3, num_classes=5).eval()
    for height, width in ((48, 80), (160, 160), (176, 32)):
        output = model(torch.randn(1, 3, height, width))
        assert output.logits.shape == (1, 5, height // model.stride, width // model.stride)
    with pytest.raises(AssertionError):
        model(torch.randn(1, 3, 48, 72))


def test_pooling_averages_the_patches() -> None:
    torch.manual_seed(0)
    config = config_of("pool_resnet32", backbone="test_vit")
    model = build_model(config, in_channels=1, num_classes=4).eval()
    images = torch.randn(2, 1, 64, 64)
    output = model(images)
    (tokens,) = model.backbone(images)
    torch.testing.assert_close(output.features, tokens.mean(dim=(2, 3)))
    assert model.multiple == 16
