"""Parts that do not go together are refused when the configuration is built, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from sarx.config.errors import UserError
from sarx.config.schema import GROUPS, TrainConfig, as_dict, build, fill
from sarx.config.schema.data import DigitScenesConfig, DigitsLTConfig
from sarx.config.schema.model import ModelConfig
from sarx.data import describe

SAR = {"name": "sar"}
PROTOSEG = {"name": "protoseg"}


def values(regularizer: dict[str, Any], **model: Any) -> dict[str, Any]:
    return {"model": model, "regularizer": regularizer}


@pytest.mark.parametrize("config", [DigitScenesConfig(), DigitsLTConfig()], ids=lambda c: c.name)
def test_the_declared_number_of_classes_is_that_of_the_data(config: Any) -> None:
    assert config.num_classes == describe(config, 0).num_classes


def test_every_data_set_declares_its_classes() -> None:
    for owner in GROUPS["data"].values():
        assert isinstance(owner.num_classes, (int, property))


@pytest.mark.parametrize(
    "given",
    [
        values(SAR),
        values(SAR, classifier="simplex_etf"),
        values(SAR, classifier="simplex_etf", feature_dim=10),
        values({"name": "none"}, classifier="simplex_etf", feature_dim=64),
        values(PROTOSEG, classifier="prototypes"),
        values(PROTOSEG, classifier="prototypes", prototypes_per_class=1, feature_dim=2),
        {
            "data": {"name": "digits_lt"},
            **values({"name": "none"}, classifier="simplex_etf", feature_dim=9, decoder="pool"),
        },
    ],
)
def test_parts_that_fit(given: dict[str, Any]) -> None:
    assert build(as_dict(build(given))) == build(given)


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        (
            values(PROTOSEG),
            "regularizer",
            "the classifier is 'linear'; set model.classifier=prototypes",
        ),
        (
            values(PROTOSEG, classifier="simplex_etf"),
            "regularizer",
            "the classifier is 'simplex_etf'; set model.classifier=prototypes",
        ),
        (
            values({"name": "none"}, classifier="prototypes"),
            "model.classifier",
            "does not go with regularizer=none: only regularizer=protoseg moves prototypes",
        ),
        (
            values(SAR, classifier="prototypes"),
            "model.classifier",
            "regularizer=sar with anchor_classifier: shared needs a linear classifier",
        ),
        (
            values({"name": "sar", "anchor_classifier": "separate"}, classifier="prototypes"),
            "model.classifier",
            "does not go with regularizer=sar: only regularizer=protoseg moves prototypes",
        ),
        (
            values(SAR, classifier="simplex_etf", feature_dim=9),
            "model.classifier",
            "needs model.feature_dim of at least 10 for the 11 classes of data=digit_scenes, found 9",
        ),
    ],
)
def test_parts_that_do_not_fit(given: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(given)
    assert caught.value.key == key
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"classifier": "cosine"},
            "model.classifier: 'cosine' is not one of linear, simplex_etf, prototypes",
        ),
        (
            {"prototypes_per_class": 0},
            r"model.prototypes_per_class: 0 is outside the allowed range \[1, 100\]",
        ),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**options)


def test_filling_in_defaults_asks_nothing_of_the_whole() -> None:
    assert fill({}) == as_dict(TrainConfig())
    given = {**values({"name": "protoseg", "temperature": 1}), "seed": 3}
    full = fill(given)
    assert full["seed"] == 3
    assert full["regularizer"]["temperature"] == 1.0
    assert full["model"]["classifier"] == "linear"
    full["model"]["classifier"] = "prototypes"
    assert build(full).regularizer.name == "protoseg"
    with pytest.raises(UserError, match=r"regularizer\.temperature: 0\.0 is outside"):
        fill(values({"name": "protoseg", "temperature": 0}))
