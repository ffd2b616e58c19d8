"""What reading every section of a study needs: known keys, names, typed options."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sarx.config.errors import UserError, nearest
from sarx.config.schema.options import check_value, coerce, field_types
from sarx.study.storage import SINGLE

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
T = TypeVar("T")


def names_of(owner: type[Any]) -> list[str]:
    """Return the names of a dataclass's fields."""
    return [item.name for item in dataclasses.fields(owner)]


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


def read_section(owner: type[T], values: Mapping[str, Any], key: str) -> T:
    """Read a section whose values are scalars."""
    part = values.get(key, {})
    check_keys(part, [item.name for item in dataclasses.fields(owner)], key)  # type: ignore[arg-type]
    return owner(**part)


def read_options(owner: type[T], part: Mapping[str, Any], at: str, **read: Any) -> T:
    """Read a section key by key, so that an error names the key; ``read`` holds what was read before."""
    checked: dict[str, Any] = dict(read)
    kinds = field_types(owner)  # type: ignore[arg-type]
    for item in dataclasses.fields(owner):  # type: ignore[arg-type]
        if item.name in part and item.name not in read:
            key = f"{at}.{item.name}"
            checked[item.name] = coerce(part[item.name], kinds[item.name], key)
            check_value(checked[item.name], item.metadata, key)
    return owner(**checked)
