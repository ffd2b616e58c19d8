"""What must hold between the arms of a study, and within the search space of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from sarx.config.compose import override
from sarx.config.errors import UserError
from sarx.config.schema import EXCLUSIVE, as_dict, build
from sarx.study.arm import MAX_ARMS, Arm
from sarx.study.components import arm_place
from sarx.study.identity import canonical
from sarx.study.schema import Study

MAX_COMBINATIONS = 4096
EQUAL_TERMS = ("training.steps", "training.eval_every", "training.device")
"""What all arms of a level must share besides the data, or the comparison is not between the arms."""


def check_keys_of_arms(study: Study) -> None:
    """Refuse more arms than a table can hold, keys that an arm may not set, and two spellings searched."""
    ablation, factors = study.ablation, study.ablation.factors
    if (count := len(ablation.arms) * math.prod(map(len, factors.values()))) > MAX_ARMS:
        raise UserError(f"{count} arms are more than a study may have ({MAX_ARMS})", key="ablation.factors")
    places: dict[str, Mapping[str, object]] = {"ablation.factors": factors}
    places |= {
        f"ablation.arms.{name}": arm for name, arm in ablation.arms.items() if name not in ablation.cells
    }
    for name, levels in ablation.components.items():
        places |= {f"ablation.components.{name}.{level}": values for level, values in levels.items()}
    for place, keys in places.items():
        for key in ("seed", "role"):
            if key in keys:
                raise UserError(
                    "seeds and roles are the study's; write 'seed: 1' at the top to draw other seeds",
                    key=f"{place}.{key}",
                )
    for first, second in EXCLUSIVE:
        if {first, second} <= {*study.search.parameters}:
            raise UserError(f"is the same quantity as {first}; remove one", key=f"search.parameters.{second}")


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
                key=arm_place(study.ablation, arm.name),
            )
        seen[same] = arm
    check_equal_terms(study, arms)
    idle = [arm for arm in arms if not arm.space]
    if study.search.scope == "per_arm" and idle and len(idle) < len(arms):
        raise UserError(
            f"arm {idle[0].key!r} has nothing to tune while others tune, which would favour them; "
            "add a parameter that every arm shares (such as optim.lr), or write 'search: none'",
            key=arm_place(study.ablation, idle[0].name),
        )


def check_equal_terms(study: Study, arms: list[Arm]) -> None:
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
                    key=arm_place(study.ablation, arm.name, "data" if name == "name" else key),
                )
