"""Read a YAML file into plain values while keeping the place of every key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sarx.config.errors import UserError

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_NODES = 20_000


@dataclass(frozen=True)
class Source:
    """A parsed YAML file: values, and for each path of keys the line and column (from 1) where it stands."""

    file: str
    text: str
    values: dict[str, Any]
    places: dict[KeyPath, tuple[int, int]]
    replaced: frozenset[str] = frozenset()  # dotted keys given on the command line instead

    def where(self, path: KeyPath) -> str:
        """Return ``file:line:column`` of a path, or of its nearest parent that stands in the file."""
        while path and path not in self.places:
            path = path[:-1]
        line, column = self.places.get(path, (1, 1))
        return f"{self.file}:{line}:{column}"

    def error(self, path: Sequence[str | int], message: str) -> UserError:
        """Return an error about a path of this file."""
        parts = tuple(path)
        return UserError(message, key=".".join(map(str, parts)) or None, where=self.where(parts))


def read_source(file: Path) -> Source:
    """Read a study file.

    Raises:
        UserError: If the file is missing, unreadable, too large or not YAML, or if it uses interpolation,
            ``_target_``, tags, or a key twice.
    """
    shown = str(file)
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        others = sorted(str(path) for path in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        hint = f"; in that folder: {', '.join(others[:8])}" if others else ""
        raise UserError(f"there is no such file{hint}", where=shown) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=shown) from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"{len(raw)} bytes are more than a study may have ({MAX_BYTES})", where=shown)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})", where=shown) from None
    reader = _Reader(shown)
    values = reader.parse(text)
    if values is None:
        raise UserError("the file is empty; see search_spaces/demo.yaml for an example", where=shown)
    if not isinstance(values, dict):
        raise UserError("expected keys such as 'study:' and 'search:' at the top", where=f"{shown}:1:1")
    return Source(shown, text, values, reader.places)


def read_value(text: str, shown: str) -> Any:
    """Read one value written as YAML, such as that of ``--set``, by the rules of a file.

    Raises:
        UserError: As ``read_source``, at ``shown``.
    """
    return _Reader(shown).parse(text)


class _Reader:
    """Walks the YAML nodes once, building plain values and places."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[KeyPath, tuple[int, int]] = {}
        self.nodes = 0

    def parse(self, text: str) -> Any:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{self.file}:{mark.line + 1}:{mark.column + 1}" if mark else self.file
            raise UserError(f"is not valid YAML: {error.problem or error.context}", where=place) from None
        except yaml.reader.ReaderError as error:
            before = text[: error.position].split("\n")
            place = f"{self.file}:{len(before)}:{len(before[-1]) + 1}"
            raise UserError(f"is not valid YAML: {error.reason}", where=place) from None
        except RecursionError:
            raise UserError("is not valid YAML: nested too deeply", where=f"{self.file}:1:1") from None
        return None if node is None else self.read(node, (), 0)

    def fail(self, node: yaml.Node, message: str) -> UserError:
        mark = node.start_mark
        return UserError(message, where=f"{self.file}:{mark.line + 1}:{mark.column + 1}")

    def read(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > 20:
            raise self.fail(node, "too many values, or values nested too deeply, for a study")
        self.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if node.tag != self.implicit(node):
            raise self.fail(node, f"tags ({node.tag}) are not allowed; write the plain value")
        if isinstance(node, yaml.MappingNode):
            return self.read_mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        return self.read_scalar(node)

    def implicit(self, node: yaml.Node) -> str:
        plain = isinstance(node, yaml.ScalarNode) and not node.style
        loader: Any = yaml.SafeLoader("")
        return str(loader.resolve(type(node), node.value, (plain, not plain)))

    def read_mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail(key_node, "a key must be plain text")
            key = str(key_node.value)
            if key == "<<":
                raise self.fail(key_node, "merge keys are not allowed; write the values out")
            if key == "_target_":
                raise self.fail(key_node, "_target_ is not allowed: a study names parts, it never runs code")
            if key in result:
                raise self.fail(key_node, f"{key}: given twice")
            if "${" in key:
                raise self.fail(key_node, f"{key}: interpolation is not allowed; write the name itself")
            self.places[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self.read(value_node, (*path, key), depth + 1)
        return result

    def read_scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        if "${" in text:
            raise self.fail(node, f"interpolation ({text}) is not allowed; write the value itself")
        try:
            value = yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            problem = getattr(error, "problem", None) or error
            raise self.fail(node, f"cannot be read: {problem}") from None
        if isinstance(value, int) and value.bit_length() > 64:
            raise self.fail(node, "the number is too large")
        if value is not None and not isinstance(value, (bool, int, float, str)):
            return text  # dates and binary stay the text that was written
        return value
