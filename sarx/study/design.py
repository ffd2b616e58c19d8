"""Arms from a study: every named set of overrides, for every level of the factors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sarx.config.compose import compose, override, parse_overrides
from sarx.config.errors import UserError, nearest
from sarx.config.schema import EXCLUSIVE, GROUPS, TrainConfig, as_dict, build, dotted_keys
from sarx.config.schema.acting import inert_options, warnings_of
from sarx.study.identity import canonical
from sarx.study.load import located
from sarx.study.schema import Study
from sarx.study.source import Source
from sarx.study.space import Parameter

MAX_ARMS = 1000
MAX_COMBINATIONS = 4096


@dataclass(frozen=True)
class Arm:
    """One row of the ablation table: what is fixed, and what remains to be searched."""

    name: str
    level: str
    overrides: dict[str, Any]
    config: TrainConfig
    space: tuple[Parameter, ...]
    warnings: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the arm with its factor levels, unique in the study."""
        return f"{self.level}/{self.name}" if self.level else self.name


def make_arms(study: Study, source: Source) -> list[Arm]:
    """Compose every arm at every level and give each its search space.

    Raises:
        UserError: With the position, for overrides that do not compose, parameters that no arm has, arms that
            are equal, or an arm with nothing to tune while others tune.
    """
    base = read_base(study, source)
    with located(source):
        check_keys_of_arms(study)
    with composing(study, source, base, {}, None):
        compose(base)
    arms = []
    for levels in itertools.product(*study.ablation.factors.values()):
        factors = dict(zip(study.ablation.factors, levels, strict=True))
        level = ",".join(f"{key}={value}" for key, value in factors.items())
        for name, overrides in study.ablation.arms.items():
            arms.append(make_arm(study, source, base, factors, level, name, overrides))
    with located(source):
        check_arms(study, arms)
        for arm in arms:
            check_combinations(arm)
    return arms


def read_base(study: Study, source: Source) -> dict[str, Any]:
    """Return what all arms share."""
    base: dict[str, Any] = {}
    with located(source):
        for i, text in enumerate(study.base):
            ((key, value),) = parse_overrides([text]).items()
            if key not in GROUPS and "." not in key:
                raise UserError(f"{key}: unknown key; {nearest(key, GROUPS)}", key=f"base.{i}")
            if key in base:
                raise UserError(f"{key}: given twice", key=f"base.{i}")
            base[key] = value
    return base


def check_keys_of_arms(study: Study) -> None:
    """Refuse more arms than a table can hold, keys that an arm may not set, and two spellings searched."""
    arms, factors = study.ablation.arms, study.ablation.factors
    if (count := len(arms) * math.prod(map(len, factors.values()))) > MAX_ARMS:
        raise UserError(f"{count} arms are more than a study may have ({MAX_ARMS})", key="ablation.factors")
    for place, keys in {"factors": factors, **{f"arms.{name}": arms[name] for name in arms}}.items():
        for key in ("seed", "role"):
            if key in keys:
                raise UserError(
                    "seeds and roles are the study's; write 'seed: 1' at the top to draw other seeds",
                    key=f"ablation.{place}.{key}",
                )
    for first, second in EXCLUSIVE:
        if {first, second} <= {*study.search.parameters}:
            raise UserError(f"is the same quantity as {first}; remove one", key=f"search.parameters.{second}")


def make_arm(
    study: Study,
    source: Source,
    base: Mapping[str, Any],
    factors: Mapping[str, Any],
    level: str,
    name: str,
    overrides: Mapping[str, Any],
) -> Arm:
    """Compose one arm: base, then factor levels, then its own overrides."""
    replaced = {key for key in (*factors, *overrides) if key in GROUPS}
    inherited = {key for key in base if key not in GROUPS and key.partition(".")[0] in replaced}
    own = {**factors, **overrides}
    spelt = {other for pair in EXCLUSIVE for other in pair if set(pair) & set(own) and other not in own}
    pairs = {**{key: value for key, value in base.items() if key not in spelt}, **own}
    optional = frozenset(key for key in inherited if key not in factors and key not in overrides)
    with composing(study, source, base, factors, name):
        config = compose(pairs, optional=optional)
    fixed = {*factors, *overrides}
    space = arm_space(study, config, fixed)
    warnings = warnings_of(config, list(overrides), frozenset(parameter.key for parameter in space))
    return Arm(name, level, {**factors, **overrides}, config, space, warnings)


@contextmanager
def composing(
    study: Study, source: Source, base: Mapping[str, Any], factors: Mapping[str, Any], arm: str | None
) -> Iterator[None]:
    """Give an error of composition the place in the study file that caused it."""
    try:
        yield
    except UserError as error:
        key = error.key or ""
        if arm is not None and key in study.ablation.arms[arm]:
            place = f"ablation.arms.{arm}.{key}"
        elif key in factors:
            place = f"ablation.factors.{key}.{study.ablation.factors[key].index(factors[key])}"
        elif key in base:
            place = f"base.{list(base).index(key)}"
        else:
            place = f"ablation.arms.{arm}" if arm is not None else "base"
        text = error.message if place.endswith(key) else f"{key}: {error.message}"
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


def check_combinations(arm: Arm) -> None:
    """Refuse a search space with proposals that cannot be built, before the first of them is trained.

    Tried are all combinations of choices and of the bounds of whole numbers; of pairs only, where all
    together are more than ``MAX_COMBINATIONS``.

    Raises:
        UserError: Naming the combination and the reason.
    """
    values = {p.key: p.choices or (int(p.low), int(p.high)) for p in arm.space if p.kind in ("choice", "int")}
    everything = math.prod(len(options) for options in values.values()) <= MAX_COMBINATIONS
    plain = as_dict(arm.config)
    for keys in [tuple(values)] if everything else itertools.combinations(values, 2):
        for point in itertools.product(*(values[key] for key in keys)):
            try:
                build(override(plain, dict(zip(keys, point, strict=True))))
            except UserError as error:
                chosen = ", ".join(f"{key} = {value}" for key, value in zip(keys, point, strict=True))
                culprit = error.key if error.key in values else keys[0]
                raise UserError(
                    f"arm {arm.key!r} cannot be built with {chosen}: {error.key}: {error.message}",
                    key=f"search.parameters.{culprit}",
                ) from None


def check_arms(study: Study, arms: list[Arm]) -> None:
    """Refuse parameters without an arm, equal arms, and arms with nothing to tune while others tune."""
    for key in study.search.parameters:
        if study.search.scope != "none" and not any(key == p.key for arm in arms for p in arm.space):
            raise UserError(
                "no arm has this option free and able to act; remove it, or add an arm that has it",
                key=f"search.parameters.{key}",
            )
    seen: dict[str, Arm] = {}
    for arm in arms:
        same = repr((canonical(arm.config), arm.space))
        if same in seen:
            raise UserError(
                f"arms {seen[same].key!r} and {arm.key!r} are equal (same options, same search space); "
                "remove one",
                key=f"ablation.arms.{arm.name}",
            )
        seen[same] = arm
    check_equal_terms(arms)
    idle = [arm for arm in arms if not arm.space]
    if idle and len(idle) < len(arms):
        raise UserError(
            f"arm {idle[0].key!r} has nothing to tune while others tune, which would favour them; "
            "add a parameter that every arm shares (such as optim.lr), or write 'search: none'",
            key=f"ablation.arms.{idle[0].name}",
        )


EQUAL_TERMS = ("training.steps", "training.eval_every", "training.device")
"""What all arms of a level must share besides the data, or the comparison is not between the arms."""


def check_equal_terms(arms: list[Arm]) -> None:
    """Refuse arms of one level that differ in data, training length or device (protocol 1, 2 and 4)."""
    first: dict[str, Arm] = {}
    for arm in arms:
        mine, other = as_dict(arm.config), first.setdefault(arm.level, arm)
        theirs = as_dict(other.config)
        keys = [*EQUAL_TERMS, *(f"data.{name}" for name in {**mine["data"], **theirs["data"]})]
        for key in keys:
            group, name = key.split(".")
            values = [values[group].get(name) for values in (mine, theirs)]
            if values[0] != values[1]:
                raise UserError(
                    f"{values[0]} here, {values[1]} in arm {other.name!r}: arms are compared on equal terms; "
                    "set it in base, or make it a factor",
                    key=f"ablation.arms.{arm.name}.{'data' if name == 'name' else key}",
                )


def check_devices(study: Study, arms: list[Arm], source: Source) -> None:
    """Refuse GPUs that are reserved and not used, or used and not reserved."""
    for arm in arms:
        device, gpus = arm.config.training.device, study.resources.gpus_per_worker
        if (device == "cuda") != (gpus > 0):
            with located(source):
                raise UserError(
                    f"{gpus:g} GPUs do not go with training.device={device} of arm {arm.key!r}",
                    key="resources.gpus_per_worker",
                )


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
    if key in source.values["ablation"]["arms"][arm.name]:
        return f"ablation.arms.{arm.name}.{key}"
    if key in arm.overrides:
        return f"ablation.factors.{key}"
    chosen = [i for i, text in enumerate(source.values["base"]) if text.partition("=")[0].strip() == key]
    return f"base.{chosen[0]}" if chosen else f"ablation.arms.{arm.name}"
