"""Arms from a study: every named set of overrides, for every level of the factors."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sarx.config.compose import EXPERIMENT, compose, parse_overrides
from sarx.config.errors import UserError, nearest
from sarx.config.schema import EXCLUSIVE, GROUPS, TrainConfig, as_dict, dotted_keys
from sarx.config.schema.acting import inert_options, warnings_of
from sarx.study.arm import Arm as Arm
from sarx.study.components import arm_place, keep_cells
from sarx.study.design_checks import check_arms, check_combinations, check_keys_of_arms
from sarx.study.load import located
from sarx.study.resources import check_training
from sarx.study.schema import Study
from sarx.study.search_checks import check_overrides, share
from sarx.study.source import Source
from sarx.study.space import Parameter


@dataclass(frozen=True)
class Level:
    """One combination of factor levels; ``name`` is empty without factors."""

    name: str
    factors: dict[str, Any]


def make_arms(study: Study, source: Source) -> list[Arm]:
    """Compose every arm at every level and give each its search space.

    A design's cells that cannot be, or that equal another, are left out: ``study.ablation.arms`` then holds
    what remains, and ``study.ablation.excluded`` the reasons. ``study.search.tune_on`` is resolved.

    Raises:
        UserError: With the position, for overrides that do not compose, parameters that no arm has, arms that
            are equal, or an arm with nothing to tune while others tune.
    """
    base = read_base(study, source)
    with located(source):
        check_keys_of_arms(study)
    with composing(study, source, base, Level("", {}), None):
        compose(base)
    levels = factor_levels(study)
    with located(source):
        made = keep_cells(
            study, lambda name: [make_arm(study, source, base, level, name) for level in levels]
        )
        arms = [made[name][i] for i in range(len(levels)) for name in study.ablation.arms]
        check_arms(study, arms)
        for arm in arms:
            check_combinations(arm)
        arms = share(study, arms)
        check_overrides(study, arms)
        if study.report.orientation and study.ablation.factors:
            raise UserError(
                "one value for all levels of the factors says nothing; give it in a study without factors",
                key="report.orientation",
            )
        for name in study.report.orientation:
            if name not in study.ablation.arms:
                hint = nearest(name, study.ablation.arms)
                raise UserError(f"there is no such arm; {hint}", key=f"report.orientation.{name}")
    return arms


def factor_levels(study: Study) -> list[Level]:
    """Return every combination of factor levels."""
    factors = study.ablation.factors
    return [
        Level(
            ",".join(f"{key}={value}" for key, value in zip(factors, levels, strict=True)),
            dict(zip(factors, levels, strict=True)),
        )
        for levels in itertools.product(*factors.values())
    ]


def read_base(study: Study, source: Source) -> dict[str, Any]:
    """Return what all arms share; what an experiment sets can be set again."""
    published: dict[str, Any] = {}
    base: dict[str, Any] = {}
    with located(source):
        for i, text in enumerate(study.base):
            try:
                pairs = parse_overrides([text])
            except UserError as error:
                text = f"{error.key}: {error.message}" if error.key else error.message
                raise UserError(text, key=f"base.{i}") from None
            if key_of(text) == EXPERIMENT:
                published = pairs
                continue
            ((key, value),) = pairs.items()
            if key not in GROUPS and "." not in key:
                raise UserError(f"{key}: unknown key; {nearest(key, [*GROUPS, EXPERIMENT])}", key=f"base.{i}")
            if key in base:
                raise UserError(f"{key}: given twice", key=f"base.{i}")
            base[key] = value
    return {**published, **base}


def key_of(text: str) -> str:
    """Return the key of a ``key=value`` text."""
    return text.partition("=")[0].strip()


def place_in_base(texts: Sequence[str], key: str) -> str:
    """Return the place of the text of the base that sets a key, itself or through its experiment."""
    keys = [key_of(text) for text in texts]
    return f"base.{keys.index(key if key in keys else EXPERIMENT)}"


def make_arm(study: Study, source: Source, base: Mapping[str, Any], level: Level, name: str) -> Arm:
    """Compose one arm: base, then factor levels, then its own overrides."""
    own = {**level.factors, **study.ablation.arms[name]}
    replaced = {key for key in own if key in GROUPS}
    inherited = {key for key in base if key not in GROUPS and key.partition(".")[0] in replaced}
    spelt = {other for pair in EXCLUSIVE for other in pair if set(pair) & set(own) and other not in own}
    pairs = {**{key: value for key, value in base.items() if key not in spelt}, **own}
    with composing(study, source, base, level, name):
        config = compose(pairs, optional=frozenset(inherited - own.keys()))
    space = arm_space(study, config, set(own))
    warnings = warnings_of(
        config, list(study.ablation.arms[name]), frozenset(parameter.key for parameter in space)
    )
    return Arm(name, level.name, own, config, space, warnings, study.ablation.cells.get(name, {}))


@contextmanager
def composing(
    study: Study, source: Source, base: Mapping[str, Any], level: Level, arm: str | None
) -> Iterator[None]:
    """Give an error of composition the place in the study file that caused it."""
    try:
        yield
    except UserError as error:
        key = error.key or ""
        if arm is not None and key in study.ablation.arms[arm]:
            place = arm_place(study.ablation, arm, key)
        elif key in level.factors:
            place = f"ablation.factors.{key}.{study.ablation.factors[key].index(level.factors[key])}"
        elif key in base:
            place = place_in_base(study.base, key)
        else:
            place = arm_place(study.ablation, arm) if arm is not None else "base"
        text = error.message if place.endswith(key) else f"{key}: {error.message}"
        if arm in study.ablation.cells and level.name:
            text += f" (at {level.name})"
        with located(source):
            raise UserError(text, key=place) from None


def arm_space(study: Study, config: TrainConfig, fixed: set[str]) -> tuple[Parameter, ...]:
    """Return the parameters that an arm can search: those it has, does not fix, and that can act."""
    if study.search.scope == "none":
        return ()
    closed = set(fixed)
    for pair in EXCLUSIVE:
        if closed & set(pair):
            closed |= set(pair)
    searched = [key for key in study.search.parameters if key not in closed]
    present = dotted_keys(as_dict(config))
    inert = inert_options(config, frozenset(searched))
    return tuple(
        parameter
        for key, parameter in study.search.parameters.items()
        if key in searched and key in present and key not in inert
    )


def check_devices(study: Study, arms: list[Arm], source: Source) -> None:
    """Refuse arms that the workers of the study cannot train."""
    for arm in arms:
        with located(source):
            check_training(arm.config.training, study.resources, f" of arm {arm.key!r}")


def check_backbones(arms: list[Arm], source: Source, known: Collection[str]) -> None:
    """Refuse a backbone that the model library does not have."""
    for arm in arms:
        searched = [p for p in arm.space if p.key == "model.backbone"]
        for name in (arm.config.model.backbone, *(choice for p in searched for choice in p.choices)):
            if name in known:
                continue
            with located(source):
                raise UserError(
                    f"there is no backbone called {name!r}; {nearest(name, known)}",
                    key=backbone_place(arm, source, name),
                )


def backbone_place(arm: Arm, source: Source, name: str) -> str:
    """Return the dotted key of the study file that chose a backbone for an arm."""
    key = "model.backbone"
    if name != arm.config.model.backbone:
        return f"search.parameters.{key}.choices"
    ablation = source.values["ablation"]
    for component, level in arm.levels_of.items():
        if key in ablation["components"][component].get(level, {}):
            return f"ablation.components.{component}.{level}.{key}"
    if not arm.levels_of and key in ablation["arms"][arm.name]:
        return f"ablation.arms.{arm.name}.{key}"
    if key in arm.overrides:
        return f"ablation.factors.{key}"
    keys = [key_of(text) for text in source.values["base"]]
    return (
        place_in_base(source.values["base"], key)
        if key in keys or EXPERIMENT in keys
        else "ablation.components"
        if arm.levels_of
        else f"ablation.arms.{arm.name}"
    )
