"""Study YAML to a typed ``Study``; every mistake is one message with file:line:column."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sarx.config.compose import parse_overrides
from sarx.config.errors import UserError, nearest
from sarx.config.schema import GROUPS, owner_of
from sarx.config.schema.options import check_value, coerce, field_types
from sarx.study.schema import Ablation, Confirm, Objective, Report, Resources, Search, Study
from sarx.study.source import Source, read_source, read_value
from sarx.study.space import KEYS, Parameter, read_parameter
from sarx.study.storage import SINGLE

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FIXED = frozenset(
    ("model.decoder", "training.steps", "training.eval_every", "training.device", "training.images_logged")
)
T = TypeVar("T")


def load_study(file: Path, settings: Sequence[str] = ()) -> tuple[Study, Source]:
    """Read, check and type a study file.

    Args:
        file: The YAML file.
        settings: ``KEY=VALUE`` texts that replace values of the file, such as ``confirm.seeds=2``.

    Raises:
        UserError: With file:line:column, the key and what would be right.
    """
    source = apply_settings(read_source(file), settings)
    with located(source):
        check_keys(source.values, [item.name for item in dataclasses.fields(Study)], "")
        for key in ("study", "base", "ablation"):
            if key not in source.values:
                raise UserError(f"{key}: is missing; see search_spaces/demo.yaml for an example")
        return (
            Study(
                study=read_name(source.values["study"], "study"),
                base=read_texts(source.values["base"], "base"),
                ablation=read_ablation(source.values["ablation"]),
                objective=read_section(Objective, source.values, "objective"),
                report=read_report(source.values),
                search=read_search(source.values),
                confirm=read_section(Confirm, source.values, "confirm"),
                resources=read_section(Resources, source.values, "resources"),
                question=opening_comment(source.text),
                file=source.text,
                **read_scalars(source.values),
            ),
            source,
        )


@contextmanager
def located(source: Source) -> Iterator[None]:
    """Add file:line:column to errors that name a key."""
    try:
        yield
    except UserError as error:
        if error.where is not None:
            raise
        key = error.key
        if any(f"{key}.".startswith(f"{given}.") for given in source.replaced):
            raise UserError(error.message, key=key, where="--set") from None
        while key:
            for path, place in source.places.items():
                if ".".join(map(str, path)) == key:
                    where = f"{source.file}:{place[0]}:{place[1]}"
                    raise UserError(error.message, key=error.key, where=where) from None
            key = key.rpartition(".")[0]
        raise UserError(error.message, key=error.key, where=f"{source.file}:1:1") from None


def apply_settings(source: Source, settings: Sequence[str]) -> Source:
    """Replace values of the file by those of ``--set``."""
    values = dict(source.values)
    replaced = []
    for text in settings:
        key, separator, raw = text.partition("=")
        if not separator:
            raise UserError(f"{text!r}: expected KEY=VALUE, for example confirm.seeds=2", where="--set")
        section, _, name = key.partition(".")
        known = {item.name for item in dataclasses.fields(Study)} - {"question", "file"}
        if section not in known:
            raise UserError(f"unknown key; {nearest(section, known)}", key=key, where="--set")
        value = read_value(raw, f"--set {key}")
        replaced.append(key)
        if not name:
            values[section] = value
            continue
        part = values.get(section, {})
        if not isinstance(part, dict):
            raise UserError(f"{section} has no parts", key=key, where="--set")
        values[section] = part | {name: value}
    return dataclasses.replace(source, values=values, replaced=frozenset(replaced))


def check_keys(values: Any, known: Sequence[str], where: str) -> None:
    """Refuse anything but a mapping with known keys."""
    if not isinstance(values, Mapping):
        raise UserError(f"expected keys ({', '.join(known)}), found {values!r}", key=where or None)
    for key in values:
        if key not in known or key in ("question", "file"):
            full = f"{where}.{key}" if where else str(key)
            raise UserError(f"unknown key; {nearest(str(key), known)}", key=full)


def read_name(value: Any, key: str) -> str:
    """Check a name that becomes a folder and a table row."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise UserError(
            f"{value!r} is not a name: a-z, 0-9, _ and -, starting with a letter or digit, "
            "at most 64 characters",
            key=key,
        )
    if value == SINGLE and key == "study":
        raise UserError(f"{SINGLE!r} is the folder of single trainings; choose another name", key=key)
    return value


def read_texts(value: Any, key: str) -> list[str]:
    """Check a list of ``key=value`` texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError("expected a list such as [data=digit_scenes, training=quick]", key=key)
    for i, item in enumerate(value):
        try:
            parse_overrides([item])
        except UserError as error:
            raise UserError(str(error), key=f"{key}.{i}") from None
    return value


def read_section(owner: type[T], values: Mapping[str, Any], key: str) -> T:
    """Read a section whose values are scalars."""
    part = values.get(key, {})
    check_keys(part, [item.name for item in dataclasses.fields(owner)], key)  # type: ignore[arg-type]
    return owner(**part)


def read_scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read the top-level scalars of a study."""
    result = {}
    for item in dataclasses.fields(Study):
        if item.name in ("seed", "max_failures", "budget") and item.name in values:
            value = coerce(values[item.name], field_types(Study)[item.name], item.name)
            check_value(value, item.metadata, item.name)
            result[item.name] = value
    return result


def read_report(values: Mapping[str, Any]) -> Report:
    """Read the report section."""
    part = values.get("report", {})
    check_keys(part, [item.name for item in dataclasses.fields(Report)], "report")
    checked = dict(part)
    if "smallest_effect" in part:
        item = next(item for item in dataclasses.fields(Report) if item.name == "smallest_effect")
        checked["smallest_effect"] = coerce(part["smallest_effect"], (float,), "report.smallest_effect")
        check_value(checked["smallest_effect"], item.metadata, "report.smallest_effect")
    if not isinstance(checked.get("primary", ""), str):
        raise UserError(f"{checked['primary']!r} is not the name of a metric", key="report.primary")
    secondary = checked.get("secondary", [])
    if not isinstance(secondary, list) or not all(isinstance(name, str) for name in secondary):
        raise UserError("expected a list of metrics such as [test/tail_iou]", key="report.secondary")
    return Report(**checked)


def read_ablation(part: Any) -> Ablation:
    """Read arms, factors and reference."""
    check_keys(part, ["factors", "reference", "arms"], "ablation")
    arms = part.get("arms")
    if not isinstance(arms, Mapping) or not arms:
        raise UserError("expected arms such as 'cross_entropy: {regularizer: none}'", key="ablation.arms")
    for name, overrides in arms.items():
        at = f"ablation.arms.{name}"
        read_name(name, at)
        if not isinstance(overrides, Mapping):
            raise UserError(
                f"expected overrides such as {{regularizer: none}} or {{}}, found {overrides!r}", key=at
            )
        for key, value in overrides.items():
            if isinstance(value, (list, dict)):
                raise UserError(f"expected one value, found {value!r}", key=f"{at}.{key}")
    reference = part.get("reference", next(iter(arms)))
    if not isinstance(reference, str) or reference not in arms:
        raise UserError(
            f"no arm is called {reference!r}; {nearest(str(reference), arms)}", key="ablation.reference"
        )
    factors = part.get("factors", {})
    if not isinstance(factors, Mapping):
        raise UserError(
            "expected factors such as 'model: [fcn_test_efficientnet, fcn_test_convnext]'",
            key="ablation.factors",
        )
    for key, levels in factors.items():
        at = f"ablation.factors.{key}"
        if not isinstance(levels, list) or not levels:
            raise UserError("expected a list of levels", key=at)
        for i, level in enumerate(levels):
            if isinstance(level, (list, dict)):
                raise UserError(f"expected one value, found {level!r}", key=f"{at}.{i}")
        if len({str(level) for level in levels}) < len(levels):
            raise UserError("a level stands twice", key=at)
    return Ablation(reference=reference, arms={k: dict(v) for k, v in arms.items()}, factors=dict(factors))


def read_search(values: Mapping[str, Any]) -> Search:
    """Read the search section; ``search: none`` gives every arm its defaults."""
    part = values.get("search", "none")
    if part == "none" or part is None:
        return Search(scope="none", trials_per_arm=1, batch=1)
    check_keys(part, [item.name for item in dataclasses.fields(Search)], "search")
    checked: dict[str, Any] = {}
    for item in dataclasses.fields(Search):
        if item.name == "parameters" or item.name not in part:
            continue
        at = f"search.{item.name}"
        value = part[item.name]
        if item.name == "scheduler" and isinstance(value, Mapping):
            check_keys(value, ["name"], at)
            value = value.get("name")
        checked[item.name] = coerce(value, field_types(Search)[item.name], at)
        check_value(checked[item.name], item.metadata, at)
    raw = part.get("parameters", {})
    if not isinstance(raw, Mapping):
        raise UserError(
            "expected entries such as 'optim.lr: {low: 0.001, high: 0.1, log: true}'", key="search.parameters"
        )
    if checked.get("scope", "per_arm") == "per_arm" and not raw:
        raise UserError("nothing to search; name parameters, or write 'search: none'", key="search")
    return Search(parameters={str(key): read_entry(str(key), entry) for key, entry in raw.items()}, **checked)


def read_entry(key: str, entry: Any) -> Parameter:
    """Read one entry of ``search.parameters``."""
    at = f"search.parameters.{key}"
    owners = searchable()
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


def searchable() -> dict[str, type]:
    """Return every option of every part that a study may search, with the dataclass that owns it."""
    found: dict[str, type] = {}
    for group, owners in GROUPS.items():
        for part in owners:
            owner = owner_of(group, part)
            found |= {f"{group}.{name}": owner for name in field_types(owner) if name != "name"}
    return found


def opening_comment(text: str) -> str:
    """Return the first comment line of the file: the question that the study asks."""
    for line in text.splitlines():
        if line.startswith("#"):
            return re.split(r"\s{3,}", line.lstrip("# ").rstrip())[0]
        if line.strip():
            break
    return ""
