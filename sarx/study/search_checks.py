"""What the search options need of the arms: a proxy that composes, and one arm that tunes for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sarx.config.compose import override
from sarx.config.errors import UserError, nearest
from sarx.config.schema import GROUPS, TrainConfig, as_dict, build, dotted_keys, owner_of
from sarx.config.schema.options import field_types
from sarx.study.arm import Arm
from sarx.study.schema import Study


def search_config(study: Study, arm: Arm) -> TrainConfig:
    """Return the options of an arm's search trials: its own with ``search.overrides``.

    Raises:
        UserError: If they cannot be built.
    """
    return build(override(as_dict(arm.config), study.search.overrides))


def check_overrides(study: Study, arms: Sequence[Arm]) -> None:
    """Refuse overrides of search trials that change task or method, do not compose, or change nothing.

    Allowed are options of training but the device, and whole numbers of data, which are sizes. What else
    differed between search and confirm would be another method, or another task, than the one reported.

    Raises:
        UserError: Naming the override.
    """
    overrides = study.search.overrides
    if not overrides:
        return
    at = "search.overrides"
    if study.search.scope == "none":
        raise UserError("nothing is searched, so that no trial would use them; remove them", key=at)
    for key in overrides:
        if not is_size(key):
            raise UserError(
                "a proxy may change the length and batch of training and the size of data, not the method "
                "or the task",
                key=f"{at}.{key}",
            )
        if key in study.search.parameters:
            raise UserError("is searched; remove it here or there", key=f"{at}.{key}")
    changed: set[str] = set()
    for arm in arms:
        try:
            config = search_config(study, arm)
        except UserError as error:
            culprit = error.key if error.key in overrides else next(iter(overrides))
            raise UserError(
                f"arm {arm.key!r} cannot be built with it: {error.key}: {error.message}",
                key=f"{at}.{culprit}",
            ) from None
        changed |= differing(arm.config, config)
    for key in overrides:
        if key not in changed:
            raise UserError("changes nothing in any arm; remove it", key=f"{at}.{key}")


def is_size(key: str) -> bool:
    """Return whether a proxy may change an option: of training all but the device, of data whole numbers."""
    group, _, name = key.partition(".")
    if group == "training":
        return name not in ("name", "device")
    owners = [owner_of(group, part) for part in GROUPS["data"]] if group == "data" else []
    kinds = [field_types(owner)[name] for owner in owners if name in field_types(owner)]
    return bool(kinds) and all(int in kind for kind in kinds)


def differing(one: TrainConfig, other: TrainConfig) -> set[str]:
    """Return the options that differ and change what is computed."""
    values = [as_dict(config) for config in (one, other)]
    return {
        key
        for key, item in dotted_keys(values[0]).items()
        if item.metadata.get("identity", True)
        and len({repr(value[key.split(".")[0]][key.split(".")[1]]) for value in values}) > 1
    }


def share(study: Study, arms: list[Arm]) -> list[Arm]:
    """Under ``scope: shared`` leave the search to ``tune_on``; other arms take its values of what they have.

    Raises:
        UserError: For an unknown ``tune_on``, or a parameter that some arm would take and nobody would tune.
    """
    search = study.search
    if search.scope != "shared":
        return arms
    search.tune_on = search.tune_on or study.ablation.reference
    if search.tune_on not in study.ablation.arms:
        raise UserError(
            f"no arm is called {search.tune_on!r}; {nearest(search.tune_on, study.ablation.arms)}",
            key="search.tune_on",
        )
    tuned = {arm.level: {p.key for p in arm.space} for arm in arms if arm.name == search.tune_on}
    shared = []
    for arm in arms:
        if arm.name == search.tune_on:
            shared.append(arm)
            continue
        keys = tuple(parameter.key for parameter in arm.space)
        for key in keys:
            if key not in tuned[arm.level]:
                raise UserError(
                    f"arm {search.tune_on!r}, which is tuned for all, does not have this option free and "
                    f"able to act, so that nobody would tune it for {arm.key!r}; remove it, or tune on "
                    "another arm",
                    key=f"search.parameters.{key}",
                )
        shared.append(dataclasses.replace(arm, space=(), takes=keys))
    return shared
