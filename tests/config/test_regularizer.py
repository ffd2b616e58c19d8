"""What the configurations of the regularizers say about options that cannot act."""

import pytest

from sarx.config.schema.regularizers import REGULARIZERS, PrototypeEmaConfig, SarConfig

NOTHING: frozenset[str] = frozenset()
EMA = {"ema_decay", "ema_half_life"}


@pytest.mark.parametrize(
    ("options", "searched", "inert"),
    [
        ({}, NOTHING, set()),
        ({"pull_weight": 0}, NOTHING, EMA | {"gate", "update_confidence"}),
        ({"pull_weight": 0}, frozenset({"regularizer.pull_weight"}), set()),
        ({"gate": "always"}, NOTHING, {"update_confidence"}),
        ({"gate": "always"}, frozenset({"regularizer.gate"}), set()),
        ({"aux_weight": 0}, NOTHING, {"filter_confidence"}),
        ({"aux_weight": 0}, frozenset({"regularizer.aux_weight"}), set()),
        (
            {"aux_weight": 0, "pull_weight": 0},
            NOTHING,
            EMA | {"gate", "update_confidence", "filter_confidence", "anchor_dim", "anchor_classifier"},
        ),
    ],
)
def test_sar_inert(options, searched, inert):
    assert SarConfig(**options).inert(searched) == inert


def test_prototype_inert():
    assert PrototypeEmaConfig().inert(NOTHING) == set()
    assert PrototypeEmaConfig(pull_weight=0).inert(NOTHING) == EMA
    assert PrototypeEmaConfig(pull_weight=0).inert(frozenset({"regularizer.pull_weight"})) == set()
    assert REGULARIZERS["none"]().inert(NOTHING) == set()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SarConfig(), None),
        (SarConfig(pull_weight=0), None),
        (SarConfig(aux_weight=0, gate="always"), None),
        (SarConfig(aux_weight=0), "give it gate: always or a positive aux_weight"),
        (SarConfig(aux_weight=0, pull_weight=0, gate="always"), "remove the arm"),
        (PrototypeEmaConfig(), None),
        (PrototypeEmaConfig(pull_weight=0), "computes exactly what regularizer=none computes"),
        (REGULARIZERS["none"](), None),
    ],
)
def test_warnings(config, said):
    warnings = config.warnings()
    assert (said is None) == (warnings == ())
    assert all(said in text for text in warnings)
