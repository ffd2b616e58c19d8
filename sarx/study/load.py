"""Study YAML to a typed ``Study``; every mistake is one message with file:line:column."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sarx.config.compose import parse_overrides
from sarx.config.errors import UserError, nearest
from sarx.config.schema.options import check_value, coerce, field_types
from sarx.study.load_ablation import read_ablation
from sarx.study.load_report import read_report
from sarx.study.load_search import read_search
from sarx.study.reading import check_keys, names_of, read_name, read_options, read_section
from sarx.study.schema import Confirm, Goal, Limits, Objective, Resources, Study
from sarx.study.source import Source, read_source, read_value


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
                objective=read_objective(source.values),
                report=read_report(source.values),
                search=read_search(source.values),
                confirm=read_section(Confirm, source.values, "confirm"),
                resources=read_section(Resources, source.values, "resources"),
                limits=read_section(Limits, source.values, "limits"),
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


def read_scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read the top-level scalars of a study."""
    result = {}
    for item in dataclasses.fields(Study):
        if item.name in ("seed", "max_failures", "budget") and item.name in values:
            value = coerce(values[item.name], field_types(Study)[item.name], item.name)
            check_value(value, item.metadata, item.name)
            result[item.name] = value
    return result


def read_objective(values: Mapping[str, Any]) -> Objective:
    """Read the objective: a metric, its direction, and further goals."""
    part = values.get("objective", {})
    check_keys(part, names_of(Objective), "objective")
    raw = part.get("also", [])
    if not isinstance(raw, list):
        raise UserError("expected a list such as [{metric: time/train_s, mode: min}]", key="objective.also")
    goals = []
    for i, item in enumerate(raw):
        check_keys(item, names_of(Goal), f"objective.also.{i}")
        if "metric" not in item:
            raise UserError("metric is missing", key=f"objective.also.{i}")
        try:
            goals.append(read_options(Goal, item, f"objective.also.{i}"))
        except UserError as error:
            raise UserError(
                error.message, key=f"objective.also.{i}.{(error.key or '').rpartition('.')[2]}"
            ) from None
    plain = {key: value for key, value in part.items() if key != "also"}
    return read_options(Objective, plain, "objective", also=goals)


def opening_comment(text: str) -> str:
    """Return the first comment line of the file: the question that the study asks."""
    for line in text.splitlines():
        if line.startswith("#"):
            return re.split(r"\s{3,}", line.lstrip("# ").rstrip())[0]
        if line.strip():
            break
    return ""
