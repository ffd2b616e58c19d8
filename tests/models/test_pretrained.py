"""Published weights: taken from the folder where the library looks, or one message that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_files import config_of

from sarx.config.errors import UserError
from sarx.config.schema.model import ModelConfig
from sarx.models import build_model
from sarx.models.pretrained import IMAGENET, loading, model_mean_std


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path


def build(config: ModelConfig) -> torch.nn.Module:
    return build_model(config, in_channels=3, num_classes=4)


def test_weights_that_cannot_be_had_are_named_with_what_to_do(hub: Path) -> None:
    with pytest.raises(UserError) as caught:
        build(config_of("fcn_test_resnet", pretrained=True))
    text = str(caught.value)
    assert caught.value.key == "model.pretrained"
    assert "cannot load the weights timm/test_resnet.r160_in1k of test_resnet (" in text
    assert "set model.pretrained=false" in text
    assert "run 'hf download timm/test_resnet.r160_in1k' where there is a network" in text
    assert str(hub / "models--timm--test_resnet.r160_in1k") in text
    assert "\n" not in text


def test_weights_of_a_mix_transformer_that_cannot_be_had(hub: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot load the weights smp-hub/mit_b0\.imagenet of mit_b0"
    ) as caught:
        build(config_of("segformer_mit_b0", pretrained=True))
    assert str(hub / "models--smp-hub--mit_b0.imagenet") in str(caught.value)


def test_a_file_that_is_no_weights_is_named(hub: Path) -> None:
    put(hub, "timm/test_resnet.r160_in1k", lambda path: path.write_bytes(b"no weights"))
    with pytest.raises(UserError, match="cannot load the weights timm/test_resnet"):
        build(config_of("fcn_test_resnet", pretrained=True))


def put(hub: Path, source: str, write: object) -> None:
    """Lay a file into the cache as a download does."""
    folder = hub / f"models--{source.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    write(snapshot / "model.safetensors")  # type: ignore[operator]


def test_weights_in_the_cache_are_the_backbone(hub: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(5)
    published = timm.create_model("test_resnet").state_dict()
    put(hub, "timm/test_resnet.r160_in1k", lambda path: save_file(published, path))
    torch.manual_seed(6)
    loaded = build(config_of("deeplabv3_test_resnet", pretrained=True)).backbone.network.state_dict()
    assert len(loaded) > 50
    assert all(torch.equal(value, published[key]) for key, value in loaded.items())


@pytest.mark.parametrize("name", ["cifar_resnet32", "lcnet_035"])
def test_a_backbone_without_published_weights_never_begins_from_random_ones(name: str) -> None:
    with pytest.raises(UserError, match=f"there are no published weights of {name}") as caught:
        build(ModelConfig(backbone=name, pretrained=True))
    assert caught.value.key == "model.pretrained"


def test_lcnet_035_is_without_weights() -> None:
    import timm

    assert not timm.models.is_model_pretrained("lcnet_035")


@pytest.mark.parametrize(
    "failure", [OSError("no\n route"), RuntimeError("size"), KeyError("x"), ValueError("y")]
)
def test_every_failure_becomes_one_line(failure: Exception, hub: Path) -> None:
    with pytest.raises(UserError) as caught, loading("name", "https://example.org/name.pth"):
        raise failure
    assert "\n" not in str(caught.value)
    assert f"put that file into {hub / 'torch' / 'checkpoints'}" in str(caught.value)


def test_an_error_of_the_network_becomes_one_line() -> None:
    from huggingface_hub.errors import HfHubHTTPError

    errors = [base for base in HfHubHTTPError.__bases__ if base is not OSError]
    assert errors
    for kind in errors:
        with pytest.raises(UserError, match="cannot load"), loading("name", "timm/name"):
            raise kind("no route")


def test_mean_and_deviation_are_those_of_the_weights() -> None:
    half = ((0.5,) * 3, (0.5,) * 3)
    assert model_mean_std(ModelConfig(backbone="resnet50", pretrained=True)) == IMAGENET
    assert model_mean_std(ModelConfig(backbone="mit_b2", pretrained=True)) == IMAGENET
    assert model_mean_std(ModelConfig(backbone="vit_small_patch16_224", pretrained=True)) == half
    assert model_mean_std(ModelConfig(backbone="vit_small_patch16_224")) is None
    assert model_mean_std(ModelConfig(backbone="cifar_resnet32", pretrained=True)) is None
