"""Models: shapes, what the features are, and every model file of the repository."""

import pytest
import torch
import yaml
from model_files import FILES, MAPS, NAMES, config_of
from torch.nn.functional import conv2d, interpolate

from sarx.config.errors import UserError
from sarx.config.schema.model import DECODERS_OF, ModelConfig
from sarx.config.schema.regularizers import SarConfig
from sarx.models import DECODERS, build_model
from sarx.models.fcn import mix_branches
from sarx.regularizers import build_regularizer

PUBLISHED = {
    "fcn_hrnet_w18": (270, 4),
    "fcn_hrnet_w48": (720, 4),
    "ocr_hrnet_w48": (512, 4),
    "deeplabv3_resnet50": (512, 8),
    "deeplabv3_resnet101": (512, 8),
    "deeplabv3plus_resnet50": (512, 4),
    "deeplabv3plus_resnet101": (512, 4),
    "pspnet_resnet50": (512, 8),
    "pspnet_resnet101": (512, 8),
    "fpn_resnet50": (128, 4),
    "nonlocal_resnet50": (512, 8),
    "upernet_swin_tiny": (512, 4),
    "upernet_swin_base": (512, 4),
    "upernet_convnext_tiny": (512, 4),
    "upernet_convnext_base": (512, 4),
    "segformer_mit_b0": (256, 4),
    "segformer_mit_b2": (768, 4),
    "segformer_mit_b5": (768, 4),
    "upernet_vit_small": (512, 4),
    "upernet_vit_base": (512, 4),
    "linear_vit_small": (384, 16),
    "linear_vit_base": (768, 16),
    "pool_resnet50": (2048, None),
    "pool_resnet32": (64, None),
}
"""File -> D and the stride of the features."""

OWN_WIDTHS = {
    "fcn_test_resnet": 32 + 48 + 48 * 4 + 96,
    "ocr_test_convnext": 512,
    "nonlocal_test_resnet": 512,
    "deeplabv3_test_resnet": 256,
    "deeplabv3plus_test_resnet": 256,
    "pspnet_test_resnet": 512,
    "fpn_test_resnet": 128,
    "upernet_test_convnext": 256,
    "segformer_test_convnext": 256,
    "linear_test_vit": 64,
    "pool_resnet32": 64,
}
"""File of a decoder -> D where feature_dim is null."""


@pytest.mark.parametrize(
    "path",
    [
        # the tiny ones; the others take seconds each
        path if "_test_" in path.stem else pytest.param(path, marks=pytest.mark.slow)
        for path in FILES
    ],
    ids=lambda path: path.stem,
)
def test_every_model_file_builds_and_has_the_promised_shapes(path):
    config = ModelConfig(**yaml.safe_load(path.read_text()))
    assert config.name == path.stem
    maps = config.decoder != "pool"
    with torch.device("meta"):
        model = build_model(config, in_channels=1, num_classes=11)
        output = model(torch.zeros(2, 1, 64, 128))
    dim = model.feature_dim
    place = (64 // model.stride, 128 // model.stride) if maps else ()
    assert output.logits.shape == (2, 11, *place)
    assert output.features.shape == (2, dim, *place)
    assert (output.auxiliary is not None) == (config.decoder == "ocr")
    if config.decoder == "ocr":
        assert output.auxiliary.shape == output.logits.shape
    assert model.classifier.weight.shape[:2] == (11, dim)
    assert all(value.is_meta for value in model.state_dict().values())
    assert 64 % model.multiple == 0
    wanted_dim, stride = PUBLISHED.get(path.stem, (config.feature_dim or 64, getattr(model, "stride", None)))
    assert dim == wanted_dim
    assert getattr(model, "stride", None) == stride


def test_the_models_of_the_benchmarks_have_files():
    assert PUBLISHED.keys() <= {path.stem for path in FILES}


def test_files_and_options_cover_the_decoders():
    assert {yaml.safe_load(path.read_text())["decoder"] for path in FILES} == DECODERS.keys()
    assert {config_of(name).decoder for name in NAMES} == DECODERS.keys()
    assert {name for names in DECODERS_OF.values() for name in names} == DECODERS.keys()


@pytest.mark.parametrize("name", OWN_WIDTHS)
def test_width_of_the_decoder_itself(name):
    with torch.device("meta"):
        model = build_model(config_of(name, feature_dim=None), in_channels=3, num_classes=5)
        assert model.feature_dim == OWN_WIDTHS[name]
        assert model(torch.zeros(2, 3, 64, 64)).features.shape[1] == OWN_WIDTHS[name]


def test_hrnet_w48_has_720_channels_at_stride_4():
    with torch.device("meta"):
        model = build_model(ModelConfig(backbone="hrnet_w48"), in_channels=3, num_classes=19)
        output = model(torch.zeros(1, 3, 64, 128))
    assert model.backbone.channels == (48, 96, 192, 384)
    assert model.backbone.strides == (4, 8, 16, 32)
    assert output.features.shape == (1, 720, 16, 32)
    assert isinstance(model.classifier, torch.nn.Conv2d)


def test_sar_adds_1_560_960_parameters_to_hrnet_w48():
    with torch.device("meta"):
        model = build_model(config_of("fcn_hrnet_w48"), in_channels=3, num_classes=19)
    options = SarConfig()
    assert options.anchor_dim == "feature_dim"
    regularizer = build_regularizer(
        options, num_classes=19, feature_dim=model.feature_dim, total_steps=80_000
    )
    assert sum(value.numel() for value in regularizer.parameters() if value.requires_grad) == 1_560_960


@pytest.mark.parametrize("name", NAMES)
def test_features_enter_the_classifier_before_dropout(name):
    torch.manual_seed(0)
    model = build_model(config_of(name, dropout=0.5), in_channels=1, num_classes=4)
    assert isinstance(model.classifier, torch.nn.Conv2d if name in MAPS else torch.nn.Linear)
    entered = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    images = torch.randn(3, 1, 64, 64)
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


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit"])
def test_backbone_without_a_stride_4_map_is_refused(name):
    with pytest.raises(UserError, match=rf"model\.backbone: {name} gives no feature map of stride 4"):
        build_model(ModelConfig(backbone=name), in_channels=1, num_classes=2)


def test_unknown_backbone_is_refused_with_a_hint():
    with pytest.raises(UserError, match="did you mean 'hrnet_w48'"):
        build_model(ModelConfig(backbone="hrnet_w48x"), in_channels=1, num_classes=2)


def test_maps_with_channels_last_are_turned():
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone="test_mambaout", feature_dim=8), in_channels=1, num_classes=2)
    assert model.backbone.channels_last
    images = torch.randn(2, 1, 64, 96)
    branches = model.backbone(images)
    turned = [branch.permute(0, 2, 3, 1) for branch in branches]
    assert all(torch.equal(one, two) for one, two in zip(turned, model.backbone.network(images), strict=True))
    assert [branch.shape[1] for branch in branches] == list(model.backbone.channels)
    assert [branch.shape[2:] for branch in branches] == [
        (64 // stride, 96 // stride) for stride in model.backbone.strides
    ]


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        (
            {"decoder": "fpn", "backbone": "cifar_resnet32"},
            "model.backbone",
            "fpn needs maps of stride 4, 8, 16",
        ),
        ({"decoder": "fpn", "backbone": "test_vit"}, "model.backbone", "gives no feature map of stride 4"),
        (
            {"decoder": "fpn", "output_stride": 8},
            "model.output_stride",
            "fpn needs .* model.output_stride=null",
        ),
        ({"decoder": "deeplabv3plus"}, "model.output_stride", "set model.output_stride=16"),
        ({"decoder": "linear", "backbone": "test_resnet"}, "model.backbone", "no plain vision transformer"),
        ({"decoder": "linear", "backbone": "test_vit", "feature_dim": 8}, "model.feature_dim", "=null"),
        ({"backbone": "mit_b0", "output_stride": 8}, "model.output_stride", "set model.output_stride=null"),
        ({"backbone": "hrnet_w18_small", "output_stride": 8}, "model.backbone", "that end at stride 8"),
        ({"backbone": "test_vit", "decoder": "upernet", "output_stride": 16}, "model.backbone", "stride 16"),
    ],
)
def test_what_does_not_fit_is_refused(options, key, message):
    with pytest.raises(UserError, match=message) as caught:
        build_model(ModelConfig(**options), in_channels=1, num_classes=2)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)
