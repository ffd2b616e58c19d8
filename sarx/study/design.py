"""Arms from a study: every named set of overrides, for every level of the factors."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sarx.config.compose import compose, parse_overrides
from sarx.config.errors import UserError, nearest
from sarx.config.schema import EXCLUSIVE, GROUPS, TrainConfig, as_dict, dotted_keys
from sarx.study.load import located
from sarx.study.schema import Study
from sarx.study.source import Source
from sarx.study.space import Parameter


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
    base = parse_overrides(study.base)
    with located(source):
        for i, text in enumerate(study.base):
            key = text.partition("=")[0].strip()
            if key not in GROUPS and "." not in key:
                raise UserError(f"unknown key; {nearest(key, GROUPS)}", key=f"base.{i}")
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
    return arms


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
    pairs = {**base, **factors, **overrides}
    optional = frozenset(key for key in inherited if key not in factors and key not in overrides)
    with composing(study, source, base, factors, name):
        config = compose(pairs, optional=optional)
    fixed = {*factors, *overrides}
    space = arm_space(study, config, fixed)
    return Arm(name, level, {**factors, **overrides}, config, space, config.regularizer.warnings())


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
    inert = {f"regularizer.{name}" for name in config.regularizer.inert(frozenset(searched))}
    return tuple(
        parameter
        for key, parameter in study.search.parameters.items()
        if key in searched and key in present and key not in inert
    )


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
        same = repr((as_dict(arm.config), arm.space))
        if same in seen:
            raise UserError(
                f"arms {seen[same].name!r} and {arm.name!r} are equal (same options, same search space); "
                "remove one",
                key=f"ablation.arms.{arm.name}",
            )
        seen[same] = arm
    idle = [arm for arm in arms if not arm.space]
    if idle and len(idle) < len(arms):
        raise UserError(
            f"arm {idle[0].key!r} has nothing to tune while others tune, which would favour them; "
            "add a parameter that every arm shares (such as optim.lr), or write 'search: none'",
            key=f"ablation.arms.{idle[0].name}",
        )


def check_backbones(arms: list[Arm], source: Source, known: Collection[str]) -> None:
    """Refuse a backbone that the model library does not have."""
    for arm in arms:
        name = arm.config.model.backbone
        if name not in known:
            key = f"ablation.arms.{arm.name}.model.backbone"
            with located(source):
                raise UserError(f"there is no backbone called {name!r}; {nearest(name, known)}", key=key)
