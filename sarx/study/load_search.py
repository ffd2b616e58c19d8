"""The ``search`` section of a study file: parameters, sampler, scheduler and their terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from sarx.config.errors import UserError, nearest
from sarx.config.schema import GROUPS, owner_of
from sarx.config.schema.options import field_types
from sarx.study.reading import check_keys, names_of, read_options
from sarx.study.search_options import COMMON, SAMPLERS, Finalists, Sampler, Scheduler, Search
from sarx.study.space import KEYS, Parameter, read_parameter

FIXED = frozenset(
    ("model.decoder", "training.steps", "training.eval_every", "training.device", "training.images_logged")
)
HALVING = ("min_fraction", "reduction_factor")
ACTING: dict[str, dict[str, tuple[str, ...]]] = {
    "sampler": {name: ("startup",) for name in SAMPLERS if name not in COMMON},
    "scheduler": {
        "successive_halving": HALVING,
        "asha": HALVING,
        "median": ("min_fraction", "min_trials"),
    },
}
"""Options that act, by part and by the name chosen there."""
T = TypeVar("T")


def read_search(values: Mapping[str, Any]) -> Search:
    """Read the search section; ``search: none`` gives every arm its defaults."""
    part = values.get("search", "none")
    if part == "none" or part is None:
        return Search(scope="none", trials_per_arm=1, batch=1)
    check_keys(part, names_of(Search), "search")
    raw = part.get("parameters", {})
    if not isinstance(raw, Mapping):
        raise UserError(
            "expected entries such as 'optim.lr: {low: 0.001, high: 0.1, log: true}'", key="search.parameters"
        )
    if part.get("scope", "per_arm") != "none" and not raw:
        raise UserError("nothing to search; name parameters, or write 'search: none'", key="search")
    parameters = {str(key): read_entry(str(key), entry) for key, entry in raw.items()}
    sampler = read_named(Sampler, part, "sampler")
    if sampler.name == "grid" and "trials_per_arm" in part:
        raise UserError("a grid has as many trials as it has cells; remove this", key="search.trials_per_arm")
    return read_options(
        Search,
        part,
        "search",
        parameters=parameters,
        sampler=sampler,
        scheduler=read_named(Scheduler, part, "scheduler"),
        finalists=read_part(Finalists, part.get("finalists", {}), "search.finalists"),
        overrides=read_overrides(part.get("overrides", {})),
    )


def read_named(owner: type[T], part: Mapping[str, Any], name: str) -> T:
    """Read a part that is a name, or a mapping with a name and options."""
    value = part.get(name, {})
    found = read_part(owner, {"name": value} if isinstance(value, str) else value, f"search.{name}")
    chosen = str(getattr(found, "name", ""))
    for key in value if isinstance(value, Mapping) else ():
        if key != "name" and key not in ACTING[name].get(chosen, ()):
            raise UserError(f"{chosen} has no such option; remove it", key=f"search.{name}.{key}")
    return found


def read_part(owner: type[T], value: Any, at: str) -> T:
    """Read a mapping of options."""
    check_keys(value, names_of(owner), at)
    return read_options(owner, value, at)


def read_overrides(raw: Any) -> dict[str, Any]:
    """Read what search trials alone are given; the arms check that it composes."""
    at = "search.overrides"
    if not isinstance(raw, Mapping):
        raise UserError("expected options such as {training.steps: 200}", key=at)
    owners = all_options()
    for key, value in raw.items():
        if key not in owners:
            raise UserError(f"unknown key; {nearest(str(key), owners)}", key=f"{at}.{key}")
        if isinstance(value, (list, dict)):
            raise UserError(f"expected one value, found {value!r}", key=f"{at}.{key}")
    return dict(raw)


def read_entry(key: str, entry: Any) -> Parameter:
    """Read one entry of ``search.parameters``."""
    at = f"search.parameters.{key}"
    owners = all_options()
    if key not in owners:
        raise UserError(f"unknown key; {nearest(key, owners)}", key=at)
    if key.startswith("data.") or key in FIXED:
        raise UserError("a search may not change the task, the data, the device or the length", key=at)
    check_keys(entry, KEYS, at)
    owner = owners[key]
    item = next(item for item in dataclasses.fields(owner) if item.name == key.partition(".")[2])
    try:
        return read_parameter(key, dict(entry), item, owner)
    except UserError as error:
        raise UserError(error.message, key=f"search.parameters.{error.key}") from None


def all_options() -> dict[str, type]:
    """Return every option of every part with the dataclass that owns it."""
    found: dict[str, type] = {}
    for group, owners in GROUPS.items():
        for part in owners:
            owner = owner_of(group, part)
            found |= {f"{group}.{name}": owner for name in field_types(owner) if name != "name"}
    return found
