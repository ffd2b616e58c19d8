"""Models: shapes, what the features are, and every model file of the repository."""

from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.functional import conv2d, interpolate

import sarx
from sarx.config.errors import UserError
from sarx.config.schema.model import ModelConfig
from sarx.models import DECODERS, build_model
from sarx.models.fcn import mix_branches

FILES = sorted((Path(sarx.__file__).parent / "conf" / "model").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_model_file_builds_and_has_the_promised_shapes(path):
    config = ModelConfig(**yaml.safe_load(path.read_text()))
    assert config.name == path.stem
    with torch.device("meta"):
        model = build_model(config, in_channels=1, num_classes=11)
        output = model(torch.zeros(2, 1, 64, 64))
    dim = model.feature_dim
    place = (16, 16) if config.decoder == "fcn" else ()
    assert output.logits.shape == (2, 11, *place)
    assert output.features.shape == (2, dim, *place)
    assert model.classifier.weight.shape[:2] == (11, dim)
    assert dim == (config.feature_dim or 720)


def test_files_cover_both_decoders():
    assert {yaml.safe_load(path.read_text())["decoder"] for path in FILES} == DECODERS.keys()


def test_hrnet_w48_has_720_channels_at_stride_4():
    with torch.device("meta"):
        model = build_model(ModelConfig(backbone="hrnet_w48"), in_channels=3, num_classes=19)
        output = model(torch.zeros(1, 3, 64, 128))
    assert model.backbone.channels == (48, 96, 192, 384)
    assert model.backbone.strides == (4, 8, 16, 32)
    assert output.features.shape == (1, 720, 16, 32)
    assert isinstance(model.classifier, torch.nn.Conv2d)


@pytest.mark.parametrize(("decoder", "module"), [("fcn", torch.nn.Conv2d), ("pool", torch.nn.Linear)])
def test_features_enter_the_classifier_before_dropout(decoder, module):
    config = ModelConfig(backbone="test_convnext", decoder=decoder, feature_dim=12, dropout=0.5)
    torch.manual_seed(0)
    model = build_model(config, in_channels=1, num_classes=4)
    assert isinstance(model.classifier, module)
    entered = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    images = torch.randn(3, 1, 32, 32)
    output = model.train()(images)
    dropped = entered[0] == 0
    torch.testing.assert_close(entered[0][~dropped], 2 * output.features[~dropped])
    assert (output.features[dropped] > 0).any()
    output = model.eval()(images)
    assert torch.equal(entered[1], output.features)
    assert torch.equal(model.classifier(output.features), output.logits)
    output.logits.sum().backward()
    assert all(p.grad is not None for p in model.classifier.parameters())


def test_pool_without_projection_keeps_the_backbone_width():
    config = ModelConfig(backbone="test_convnext", decoder="pool")
    model = build_model(config, in_channels=1, num_classes=4)
    assert model.feature_dim == model.backbone.channels[-1] == 64


def test_mixing_equals_upsample_concatenate_convolve():
    torch.manual_seed(1)
    sizes = ((5, (8, 12)), (7, (4, 6)), (3, (2, 3)))
    branches = [torch.randn(2, c, *size, dtype=torch.float64, requires_grad=True) for c, size in sizes]
    weight = torch.randn(6, 15, 1, 1, dtype=torch.float64, requires_grad=True)
    whole = [interpolate(branch, size=(8, 12), mode="bilinear", align_corners=False) for branch in branches]
    literal = conv2d(torch.cat(whole, dim=1), weight)
    mixed = mix_branches(branches, weight)
    torch.testing.assert_close(mixed, literal)
    inputs = [*branches, weight]
    slope = torch.randn_like(literal)
    for ours, theirs in zip(
        torch.autograd.grad((mixed * slope).sum(), inputs),
        torch.autograd.grad((literal * slope).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_weights_depend_on_the_torch_seed_alone():
    config = ModelConfig(backbone="test_convnext", feature_dim=8)
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build_model(config, in_channels=1, num_classes=4).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit", "test_mambaout"])
def test_backbone_without_a_stride_4_map_is_refused(name):
    with pytest.raises(UserError, match=rf"model\.backbone: {name} gives no feature map of stride 4"):
        build_model(ModelConfig(backbone=name), in_channels=1, num_classes=2)


def test_unknown_backbone_is_refused_with_a_hint():
    with pytest.raises(UserError, match="did you mean 'hrnet_w48'"):
        build_model(ModelConfig(backbone="hrnet_w48x"), in_channels=1, num_classes=2)
