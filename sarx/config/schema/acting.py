"""Which options cannot act beside the others, so that nobody searches or reports them in vain."""

from __future__ import annotations

from collections.abc import Collection

from sarx.config.schema import TrainConfig, as_dict
from sarx.config.schema.model import AUXILIARY, DECODERS
from sarx.config.schema.regularizers import SarConfig

NO_AUXILIARY = tuple(name for name in DECODERS if name not in AUXILIARY)


def inert_options(config: TrainConfig, searched: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the dotted keys of options that change nothing, whatever their value.

    Args:
        config: The other options.
        searched: Dotted keys whose value is still open; they count as able to take any.
    """
    keys = {f"regularizer.{name}" for name in config.regularizer.inert(searched)}
    values = as_dict(config)
    rules = (
        ("model.classifier", ("linear", "simplex_etf"), "model.prototypes_per_class"),
        ("loss.weighting", ("inverse",), "loss.beta"),
        ("model.decoder", NO_AUXILIARY, "model.auxiliary_weight"),
    )
    if config.training.unlabelled_weight == 0 and "training.unlabelled_weight" not in searched:
        keys |= {"training.teacher_decay", "training.pseudo_confidence"}
    for key, those, inert in rules:
        group, name = key.split(".")
        if key not in searched and values[group].get(name) in those:
            keys.add(inert)
    return frozenset(keys)


def warnings_of(
    config: TrainConfig, given: Collection[str], searched: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Return what a reader of the plan must know about options that cannot act.

    Args:
        config: All options.
        given: Dotted keys that somebody set on purpose.
        searched: Dotted keys whose value is still open.
    """
    found = list(config.regularizer.warnings())
    values, inert = as_dict(config), inert_options(config, searched)
    for key in given:
        group, _, name = key.partition(".")
        if key in inert and values[group][name] is not None:
            found.append(f"{key} = {values[group][name]} cannot act beside the other options")
    if config.loss.name == "logit_adjusted" and values["loss"]["tau"] == 0 and "loss.tau" not in searched:
        found.append("loss.tau is 0: computes what loss=cross_entropy computes")
    regularizer = config.regularizer
    if config.model.classifier == "simplex_etf" and isinstance(regularizer, SarConfig):
        if regularizer.anchor_classifier == "shared":
            found.append("the classifier is fixed: anchor_classifier shared is the same as shared_frozen")
        if regularizer.pull_weight == 0:
            found.append(
                "the classifier is fixed and nothing is pulled: computes what regularizer=none computes"
            )
    return tuple(found)
