"""Options that cannot act: said where somebody set them, kept out of search spaces."""

import pytest

from sarx.config.compose import compose
from sarx.config.schema.acting import inert_options, warnings_of


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ({}, None),
        ({"regularizer.pull_target": "current", "regularizer.ema_decay": 0.5}, "ema_decay = 0.5 cannot act"),
        ({"regularizer.gate": "always", "regularizer.update_confidence": 0.3}, "update_confidence = 0.3"),
        ({"regularizer.pull_weight": 0, "regularizer.distance": "cosine"}, "distance = cosine cannot act"),
        ({"regularizer": "prototype_ema", "regularizer.update_confidence": 0.3}, "update_confidence = 0.3"),
        ({"model.prototypes_per_class": 3}, "model.prototypes_per_class = 3 cannot act"),
        ({"model.auxiliary_weight": 0.1}, "model.auxiliary_weight = 0.1 cannot act"),
        ({"model": "ocr_test_convnext", "model.auxiliary_weight": 0.1}, None),
        ({"loss": "class_balanced", "loss.weighting": "inverse", "loss.beta": 0.5}, "loss.beta = 0.5"),
        ({"loss": "class_balanced", "loss.beta": 0.5}, None),
        ({"loss": "logit_adjusted", "loss.tau": 0}, "loss.tau is 0"),
        ({"model.classifier": "simplex_etf"}, "the same as shared_frozen"),
        ({"model.classifier": "simplex_etf", "regularizer": "none"}, None),
    ],
)
def test_warnings(pairs, said):
    found = warnings_of(compose(pairs), list(pairs))
    assert (said is None) == (found == ())
    assert said is None or any(said in text for text in found)


def test_a_searched_option_can_take_any_value():
    pairs = {"regularizer.pull_weight": 0, "regularizer.distance": "cosine"}
    assert not warnings_of(compose(pairs), ["regularizer.distance"], frozenset({"regularizer.pull_weight"}))[
        1:
    ]
    config = compose({"loss": "class_balanced", "loss.weighting": "inverse"})
    assert "loss.beta" in inert_options(config)
    assert "loss.beta" not in inert_options(config, frozenset({"loss.weighting"}))
