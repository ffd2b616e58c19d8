"""The names of backbones, read without timm."""

import subprocess
import sys

import pytest

from sarx.config.errors import UserError
from sarx.models import backbone_names
from sarx.models.backbone_names import CIFAR_RESNETS, MIX_TRANSFORMERS, check_backbone


def test_names_are_those_of_timm_and_ours():
    import timm

    assert backbone_names() == set(timm.list_models()) | MIX_TRANSFORMERS | CIFAR_RESNETS
    assert not set(timm.list_models()) & (MIX_TRANSFORMERS | CIFAR_RESNETS)


def test_mix_transformers_are_those_of_the_library():
    from segmentation_models_pytorch.encoders.mix_transformer import mix_transformer_encoders

    assert set(mix_transformer_encoders) == MIX_TRANSFORMERS


def test_cifar_resnets_are_those_that_are_built():
    from sarx.models.cifar_resnet import BLOCKS

    assert BLOCKS.keys() == CIFAR_RESNETS


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mit_b22", "did you mean 'mit_b2'"), ("cifar_resnet33", "did you mean 'cifar_resnet32'")],
)
def test_unknown_names_are_refused_with_a_hint(name, hint):
    with pytest.raises(UserError, match=hint) as caught:
        check_backbone(name)
    assert caught.value.key == "model.backbone"


def test_names_are_read_without_importing_timm_or_torch():
    code = (
        "import sys; from sarx.models import backbone_names;"
        "names = backbone_names();"
        "print(len(names) > 500 and {'mit_b0', 'cifar_resnet32'} <= names,"
        " {'timm', 'torch', 'segmentation_models_pytorch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "set()"]
