"""The identity of a trial: a hash of everything that changes its numbers, and of nothing else."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import sarx
from sarx.config import plugins
from sarx.config.schema import TrainConfig, part_names
from sarx.study.comments import without_comments

PACKAGE = Path(__file__).resolve().parents[1]
TRAINING_CODE = tuple(f"{part}/**/*.py" for part in ("training", "models", "regularizers", "losses", "data"))
TRAINING_CODE += ("study/seeds.py",)
ARITHMETIC = ("torch", "timm", "numpy", "torchvision", "segmentation_models_pytorch", "pillow")
"""Packages whose major.minor the numbers of a trial depend on."""
WITHOUT_EFFECT = frozenset(
    {
        *(f"training/{name}.py" for name in ("timing", "smoke", "single", "preview", "scoring")),
        *(f"training/{name}.py" for name in ("probing", "probed_images")),
        *(f"models/{name}.py" for name in ("backbone_names", "table")),
        *(f"data/{name}.py" for name in ("verify", "checks", "check_report")),
    }
)
"""Files there that change no number of a trial."""
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Code:
    """What trains: a digest, made of the digest of each source file and of the versions it runs on."""

    digest: str
    files: Mapping[str, str]


def trial_id(
    config: TrainConfig, *, data_fingerprint: str, code: str, threads: int = 1, workers: int = 1
) -> str:
    """Return the first 16 hex digits of SHA-256 over the canonical resolved config.

    Args:
        config: Resolved options with seed and role; options at their default are left out.
        data_fingerprint: Text that changes when the data set does.
        code: Digest of what trains, ``training_code().digest``.
        threads: CPU threads, which change the order of sums; 1 is left out.
        workers: Ranks that train it together; 1 is left out, and any number where they change nothing.
    """
    record: dict[str, Any] = {"config": canonical(config), "data": data_fingerprint, "code": code}
    if threads != 1:
        record["threads"] = threads
    if workers != 1 and not same_on_any_workers(config):
        record["workers"] = workers
    return hashlib.sha256(_CANONICAL.encode(record).encode()).hexdigest()[:16]


def same_on_any_workers(config: TrainConfig) -> bool:
    """Return whether the number of ranks changes no number of a training.

    Each rank has its own batch statistics unless they are synchronised, its own dropout masks, its own choice
    of hard pixels, and images without labels that are pasted into one another.
    """
    own = config.model.dropout > 0 or config.loss.name == "ohem" or config.training.unlabelled_weight > 0
    return config.training.sync_bn and not own


def canonical(config: TrainConfig) -> dict[str, Any]:
    """Return the options that make a trial what it is, as nested plain values.

    A part's name stays; an option at the default it was introduced with is left out, so that a new option
    leaves old identities unchanged. Values are already coerced to the type of their field: 1 and 1.0 are one.

    Where equal options come to give another record, ``sarx.search.book.IDENTITY`` needs a new value: without
    it the ledger's word is taken for the identities of recorded proposals.
    """
    record: dict[str, Any] = {"seed": config.seed, "role": config.role}
    for group in part_names():
        part = getattr(config, group)
        record[group] = {
            name: value
            for name, default in _identifying(part.__class__)
            if (value := getattr(part, name)) != default or name == "name"
        }
    return record


@cache
def _identifying(owner: type[Any]) -> list[tuple[str, Any]]:
    """Return name and default of the fields of an options class that belong to identity."""
    fields = dataclasses.fields(owner)
    return [(item.name, item.default) for item in fields if item.metadata.get("identity", True)]


def training_code() -> Code:
    """Digest the statements of the sources that train, plug-ins included, and the versions they run on."""
    return _training_code(plugins.loaded())


@cache
def _training_code(extra: tuple[str, ...]) -> Code:
    files = {
        path.relative_to(PACKAGE).as_posix(): source_digest(path.read_text(encoding="utf-8"))
        for pattern in TRAINING_CODE
        for path in sorted(PACKAGE.glob(pattern))
        if path.relative_to(PACKAGE).as_posix() not in WITHOUT_EFFECT
    }
    versions = {"sarx": sarx.__version__} | {name: package_version(name) for name in ARITHMETIC}
    files |= {f"version of {name}": ".".join(full.split(".")[:2]) for name, full in versions.items()}
    files |= {f"plugin/{name}": plugin_digest(name) for name in extra}
    return Code(_digest(files), files)


def plugin_digest(name: str) -> str:
    """Digest the statements of all sources that a loaded plug-in is made of."""
    return _digest({path: source_digest(text) for path, text in plugins.sources(name).items()})


def _digest(record: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(record), sort_keys=True).encode()).hexdigest()[:16]


def part_digest(part: str) -> str:
    """Digest the sources of one part, such as ``data``."""
    return _digest(
        {path: digest for path, digest in training_code().files.items() if path.startswith(f"{part}/")}
    )


def source_digest(text: str) -> str:
    """Digest Python source; comments, docstrings, blank lines and trailing spaces do not count."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    lines = without_comments(text, nodes)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in nodes:
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            first, last = docstring.lineno - 1, (docstring.end_lineno or 0) - 1
            before = lines[first].encode()[: docstring.col_offset].decode()
            after = lines[last].encode()[docstring.end_col_offset :].decode()
            lines[first : last + 1] = [before, *[""] * (last - first)]
            lines[last] += after
    kept = "\n".join(line.rstrip() for line in lines if line.strip())
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


def package_version(name: str) -> str:
    """Return the version of an installed package, or ``none``."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def changed_files(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the files whose digest differs between two code states."""
    return sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
