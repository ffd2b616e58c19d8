"""All options of one training run, as typed dataclasses of the standard library.

``GROUPS`` is the registry: group -> name -> dataclass. A group with one dataclass lists it under ``*``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sarx.config.errors import UserError, nearest
from sarx.config.schema.classification_data import (
    Cifar10LTConfig,
    Cifar100LTConfig,
    ImageNetLTConfig,
    INaturalistConfig,
)
from sarx.config.schema.data import DigitScenesConfig, DigitsLTConfig
from sarx.config.schema.loss import ClassBalancedConfig, CrossEntropyConfig, LogitAdjustedConfig, OhemConfig
from sarx.config.schema.model import DECODERS_OF, ModelConfig
from sarx.config.schema.optim import OptimConfig
from sarx.config.schema.options import check_value, coerce, field_types, option
from sarx.config.schema.regularizers import REGULARIZERS, RegularizerConfig, SarConfig
from sarx.config.schema.segmentation_data import (
    ADE20KConfig,
    CityscapesConfig,
    CocoStuffConfig,
    FolderConfig,
    PascalContextConfig,
)
from sarx.config.schema.training import TrainingConfig

DataConfig = (
    DigitScenesConfig
    | DigitsLTConfig
    | CityscapesConfig
    | ADE20KConfig
    | PascalContextConfig
    | CocoStuffConfig
    | FolderConfig
    | Cifar10LTConfig
    | Cifar100LTConfig
    | ImageNetLTConfig
    | INaturalistConfig
)
LossConfig = CrossEntropyConfig | LogitAdjustedConfig | ClassBalancedConfig | OhemConfig

GROUPS: dict[str, Mapping[str, type]] = {
    "data": {
        "digit_scenes": DigitScenesConfig,
        "digits_lt": DigitsLTConfig,
        "cityscapes": CityscapesConfig,
        "ade20k": ADE20KConfig,
        "pascal_context": PascalContextConfig,
        "coco_stuff": CocoStuffConfig,
        "folder": FolderConfig,
        "cifar10_lt": Cifar10LTConfig,
        "cifar100_lt": Cifar100LTConfig,
        "imagenet_lt": ImageNetLTConfig,
        "inaturalist": INaturalistConfig,
    },
    "model": {"*": ModelConfig},
    "regularizer": REGULARIZERS,
    "loss": {
        "cross_entropy": CrossEntropyConfig,
        "logit_adjusted": LogitAdjustedConfig,
        "class_balanced": ClassBalancedConfig,
        "ohem": OhemConfig,
    },
    "optim": {"*": OptimConfig},
    "training": {"*": TrainingConfig},
}

EXCLUSIVE: tuple[tuple[str, str], ...] = (("regularizer.ema_decay", "regularizer.ema_half_life"),)
"""Two spellings of one quantity: giving one clears the other."""

SEED_LIMIT = 2**63 - 1


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides what one trial computes, besides the code."""

    data: DataConfig = field(default_factory=DigitScenesConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    regularizer: RegularizerConfig = field(default_factory=SarConfig)
    loss: LossConfig = field(default_factory=CrossEntropyConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = option(0, low=0, high=SEED_LIMIT)
    role: str = option("search", choices=("search", "confirm"))

    def __post_init__(self) -> None:
        """Check the fields that belong to no group and what two groups must agree on."""
        self.seed = coerce(self.seed, (int,), "seed")
        for item in _own_fields():
            check_value(getattr(self, item.name), item.metadata, item.name)
        wanted = DECODERS_OF[self.data.task]
        if self.model.decoder not in wanted:
            raise UserError(
                f"{self.model.decoder!r} does not fit data={self.data.name} ({self.data.task}), which needs "
                f"{' or '.join(wanted)}; choose a model such as model={wanted[0]}_test_efficientnet",
                key="model.decoder",
            )
        self.model.check_decoder()
        self.training.check_shares(1, self.model.fewest_images)
        check_classifier(self)
        if isinstance(self.regularizer, SarConfig):
            self.regularizer.check_sizes(self.data.num_classes, self.model.feature_dim)


@cache
def _own_fields() -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a ``TrainConfig`` that are no part."""
    return tuple(item for item in dataclasses.fields(TrainConfig) if item.name in ("seed", "role"))


@cache
def part_names() -> tuple[str, ...]:
    """Return the names of the parts of a ``TrainConfig``, in order."""
    own = {item.name for item in _own_fields()}
    return tuple(item.name for item in dataclasses.fields(TrainConfig) if item.name not in own)


def check_classifier(config: TrainConfig) -> None:
    """Refuse a classifier that does not fit the regularizer, the number of classes or D.

    Raises:
        UserError: With the reason and what would be right.
    """
    classifier, regularizer = config.model.classifier, config.regularizer.name
    moved = getattr(config.regularizer, "classifier", "")
    if moved and classifier != moved:
        raise UserError(
            f"{regularizer} moves what model.classifier={moved} classifies with, and the classifier is "
            f"{classifier!r}; set model.classifier={moved}",
            key="regularizer",
        )
    if classifier == "prototypes" and not moved:
        reason = "only regularizer=protoseg moves prototypes; they would stay where they were drawn"
        anchors = str(getattr(config.regularizer, "anchor_classifier", ""))
        if anchors.startswith("shared"):
            reason = f"regularizer={regularizer} with anchor_classifier: {anchors} needs a linear classifier"
        raise UserError(
            f"'prototypes' does not go with regularizer={regularizer}: {reason}; choose regularizer=protoseg "
            "or another classifier",
            key="model.classifier",
        )
    least = config.data.num_classes - 1
    if classifier == "simplex_etf" and (config.model.feature_dim or least) < least:
        raise UserError(
            f"simplex_etf needs model.feature_dim of at least {least} for the {least + 1} classes of "
            f"data={config.data.name}, found {config.model.feature_dim}",
            key="model.classifier",
        )


def owner_of(group: str, name: str) -> type:
    """Return the dataclass that owns the options of ``group`` when its part is called ``name``.

    Raises:
        UserError: If the group or the part does not exist.
    """
    if group not in GROUPS:
        raise UserError(f"no such group; {nearest(group, GROUPS)}", key=group)
    owners = GROUPS[group]
    if "*" in owners:
        return owners["*"]
    if name not in owners:
        raise UserError(f"no part is called {name!r}; {nearest(name, owners)}", key=group)
    return owners[name]


def build(values: Mapping[str, Any]) -> TrainConfig:
    """Turn nested plain values into a checked ``TrainConfig``.

    Raises:
        UserError: For an unknown key, a wrong type, a value outside its range, or parts that do not fit.
    """
    return TrainConfig(**read_parts(values))


def rebuild(config: TrainConfig, values: Mapping[str, Any], groups: Collection[str]) -> TrainConfig:
    """Return the ``TrainConfig`` of nested plain values that equal those of ``config`` outside of ``groups``.

    The other parts are those of ``config`` itself, so a search makes many configurations quickly.

    Raises:
        UserError: As ``build``.
    """
    known = {name: getattr(config, name) for name in (*part_names(), "seed", "role")}
    return TrainConfig(**known | read_parts({group: values[group] for group in groups}))


def fill(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested plain values with every default filled in; whether the parts fit is not checked.

    Raises:
        UserError: For an unknown key, a wrong type or a value outside its range.
    """
    given = {
        key: part if key in ("seed", "role") else dataclasses.asdict(part)
        for key, part in read_parts(values).items()
    }
    return {**as_dict(TrainConfig()), **given}


def read_parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``TrainConfig`` that are given, each part as its checked dataclass.

    Raises:
        UserError: For an unknown key, a wrong type or a value outside its range.
    """
    parts: dict[str, Any] = {}
    for key, value in values.items():
        if key in ("seed", "role"):
            parts[key] = value
            continue
        if not isinstance(value, Mapping):
            raise UserError(f"expected options, found {value!r}", key=key)
        owner = owner_of(key, str(value.get("name", "")))
        known = field_types(owner)
        for option_name in value:
            if option_name not in known:
                dotted = f"{key}.{option_name}"
                raise UserError(f"unknown key; {nearest(dotted, dotted_keys(values))}", key=dotted)
        parts[key] = owner(**value)
    return parts


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the nested plain values of a config; ``build`` reads them back."""
    return dataclasses.asdict(config)


def dotted_keys(values: Mapping[str, Any]) -> dict[str, dataclasses.Field[Any]]:
    """Return every dotted option key that exists for these groups, with its field."""
    owners = []
    for group, known in GROUPS.items():
        part = values.get(group, {})
        name = str(part.get("name", "")) if isinstance(part, Mapping) else ""
        owners.append((group, known.get("*") or known.get(name)))
    return _keys_of(tuple(owners))


@cache
def _keys_of(owners: tuple[tuple[str, type | None], ...]) -> dict[str, dataclasses.Field[Any]]:
    return dict(_walk(owners))


def _walk(owners: Iterable[tuple[str, type | None]]) -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    for group, owner in owners:
        if owner is not None:
            for item in dataclasses.fields(owner):
                yield f"{group}.{item.name}", item
