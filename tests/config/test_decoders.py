"""Which decoders fit which task, and what a decoder asks of the other options of the model."""

from __future__ import annotations

import pytest

from sarx.config.compose import compose
from sarx.config.errors import UserError
from sarx.config.schema import TrainConfig
from sarx.config.schema.model import DECODERS_OF, ModelConfig
from sarx.study.identity import canonical

NEEDS = {
    "deeplabv3plus": {"output_stride": 16},
    "linear": {"feature_dim": None},
}


@pytest.mark.parametrize("decoder", DECODERS_OF["segmentation"])
def test_decoders_of_segmentation(decoder: str) -> None:
    options = {f"model.{key}": value for key, value in NEEDS.get(decoder, {"feature_dim": 32}).items()}
    if decoder == "deeplabv3plus":
        options["model.feature_dim"] = 32
    pairs = {"model.decoder": decoder, **options}
    assert compose(pairs).model.decoder == decoder
    with pytest.raises(UserError, match=f"'{decoder}' does not fit data=digits_lt") as caught:
        compose({"data": "digits_lt", **pairs})
    assert caught.value.key == "model.decoder"


def test_pool_is_for_classification() -> None:
    assert DECODERS_OF["classification"] == ("pool",)
    with pytest.raises(UserError, match=r"'pool' does not fit data=digit_scenes .* needs fcn or ocr or"):
        compose({"model.decoder": "pool"})


@pytest.mark.parametrize(
    ("pairs", "key", "message"),
    [
        ({"model.output_stride": 9}, "model.output_stride", "9 is not one of null, 8, 16"),
        ({"model.output_stride": 32}, "model.output_stride", "32 is outside the allowed range [8, 16]"),
        ({"model.output_stride": True}, "model.output_stride", "True is not an int or null"),
        ({"model.auxiliary_weight": -1}, "model.auxiliary_weight", "outside the allowed range [0, 100]"),
        ({"model.decoder": "psp"}, "model.decoder", "'psp' is not one of fcn, ocr, nonlocal"),
        ({"model.decoder": "deeplabv3plus"}, "model.output_stride", "set model.output_stride=16 (or 8)"),
        ({"model": "fpn_test_resnet", "model.output_stride": 8}, "model.output_stride", "fpn needs maps"),
        (
            {"model": "linear_test_vit", "model.feature_dim": 8},
            "model.feature_dim",
            "set model.feature_dim=null",
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_built(pairs: dict, key: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(pairs)
    assert caught.value.key == key
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_new_options_leave_old_identities_as_they_were() -> None:
    assert canonical(TrainConfig())["model"] == {}
    assert (ModelConfig().output_stride, ModelConfig().auxiliary_weight) == (None, 0.4)
