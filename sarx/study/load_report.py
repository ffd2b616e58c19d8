"""The ``report`` section of a study file: metrics, the smallest effect, orientation values, cited rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sarx.config.errors import UserError
from sarx.config.schema.options import check_value, coerce
from sarx.study.reading import check_keys, names_of
from sarx.study.schema import Cited, Report

MAX_CITED = 100
MAX_LENGTH = {"name": 80, "source": 200, "setting": 200}


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
    orientation = checked.get("orientation", {})
    if not isinstance(orientation, dict):
        raise UserError("expected arms with values such as {cross_entropy: 0.7993}", key="report.orientation")
    if orientation:
        checked["orientation"] = {
            str(arm): coerce(value, (float,), f"report.orientation.{arm}")
            for arm, value in orientation.items()
        }
    checked["cited"] = read_cited(part.get("cited", []))
    return Report(**checked)


def read_cited(raw: Any) -> list[Cited]:
    """Read the rows that others published: name, value, source and, if given, setting.

    Raises:
        UserError: With the row and the part of it at fault.
    """
    at = "report.cited"
    if not isinstance(raw, list):
        raise UserError("expected a list such as [{name: FCN, value: 0.785, source: their table 5}]", key=at)
    if len(raw) > MAX_CITED:
        raise UserError(f"{len(raw)} rows are more than a report may cite ({MAX_CITED})", key=at)
    rows: list[Cited] = []
    for i, item in enumerate(raw):
        here = f"{at}.{i}"
        check_keys(item, names_of(Cited), here)
        for key in ("name", "value", "source"):
            if key not in item:
                raise UserError(f"{key} is missing; a cited row has name, value and source", key=here)
        value = coerce(item["value"], (float,), f"{here}.value")
        check_value(value, {}, f"{here}.value")
        texts = {key: read_words(item.get(key, ""), f"{here}.{key}", MAX_LENGTH[key]) for key in MAX_LENGTH}
        row = Cited(value=value, **texts)
        if (row.name, row.setting) in {(other.name, other.setting) for other in rows}:
            raise UserError(f"{row.name!r} stands twice with this setting", key=f"{here}.name")
        rows.append(row)
    return rows


def read_words(value: Any, key: str, most: int) -> str:
    """Return printable text of one line; only ``setting`` may be empty.

    Raises:
        UserError: If it is no text, too long, empty, or has characters that do not print.
    """
    if not isinstance(value, str):
        raise UserError(f"{value!r} is not text; put it into quotes", key=key)
    if not value.isprintable():
        bad = next(character for character in value if not character.isprintable())
        raise UserError(f"holds a character that does not print ({bad!r})", key=key)
    if len(value) > most:
        raise UserError(f"{len(value)} characters are more than allowed ({most})", key=key)
    if not value.strip() and not key.endswith("setting"):
        raise UserError("is empty", key=key)
    return value.strip()
