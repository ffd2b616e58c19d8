"""Plug-ins: modules that somebody names with ``--plugin`` and that add parts to the plain dicts.

Nothing is imported unless it is named: neither a study file nor an installed package brings code in. A name
is that of a module, or of an entry point that an installed package has in the group ``sarx.plugins``. A
plug-in adds options to ``sarx.config.schema.GROUPS`` (a regularizer: a line in ``REGULARIZERS``). It is
imported to plan a study; one that leaves torch to the ``module:Class`` that it names keeps planning quick.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from sarx.config.errors import UserError, nearest
from sarx.config.schema import GROUPS

ENTRY_POINTS = "sarx.plugins"
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
IMPLEMENTATION = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*")
INSTALLED = frozenset({"site-packages", "dist-packages"})
BROKEN: tuple[type[Exception], ...] = (ImportError, SyntaxError, NameError, AttributeError, TypeError)
BROKEN += (ValueError, LookupError, OSError, RuntimeError, AssertionError, ArithmeticError)
"""What code with a mistake in it raises."""
PACKAGE = str(Path(__file__).parents[1])

_loaded: list[str] = []


def load(names: Iterable[str]) -> None:
    """Import plug-ins, each once, in this order.

    Raises:
        UserError: If there is no such module, if it cannot be imported, if it replaces a part, or for one of
            ``sources``.
    """
    for name in names:
        if MODULE.fullmatch(name) is None or name.endswith(".py"):
            right = name.removesuffix(".py").strip("/").replace("/", ".")
            hint = f"; for a file of this folder write {right}" if MODULE.fullmatch(right) else ""
            raise UserError(f"{name!r} is not a module such as my_lab.sar_parts{hint}", where="--plugin")
        module = _entry_points().get(name, name)
        if module in _loaded:
            continue
        before = {group: dict(owners) for group, owners in GROUPS.items()}
        _import(module)
        for group, owners in before.items():
            for part, owner in owners.items():
                if GROUPS[group].get(part) is not owner:
                    raise UserError(
                        f"{module} replaces {group}={part}; give the part a name of its own", where="--plugin"
                    )
        sources(module)
        _loaded.append(module)


def loaded() -> tuple[str, ...]:
    """Return the modules of the loaded plug-ins, in the order of loading."""
    return tuple(_loaded)


def sources(module: str) -> dict[str, str]:
    """Return the source files that an imported plug-in is made of: path within its root -> text.

    They are its module (of a package: all files of it) and, from there on, every module of its own that is
    imported or named as ``module:Class``. Its own are those below the folder that holds its outermost
    package; of an installed plug-in, those of that package. Nothing is imported here, so that driver and
    workers find the same. What is imported under a computed name, and what is not Python, is not seen.

    Raises:
        UserError: If the module has no Python source, or one of the files is not valid Python.
    """
    file = Path(getattr(sys.modules[module], "__file__", None) or "")
    if file.suffix != ".py":
        raise UserError(f"{module} has no Python source, which identifies its trials", where="--plugin")
    packaged = file.name == "__init__.py"
    root = file.resolve().parents[module.count(".") + packaged]
    found: dict[str, str] = {}
    pending = list(_files(root, module))
    if packaged:
        pending += sorted(file.resolve().parent.rglob("*.py"))
    while pending:
        path = pending.pop()
        shown = path.relative_to(root).as_posix()
        if shown in found:
            continue
        found[shown] = text = path.read_text(encoding="utf-8")
        for name in _names(text, path, root):
            top = name.partition(".")[0]
            if top != "sarx" and (top == module.partition(".")[0] or not INSTALLED & set(root.parts)):
                pending += _files(root, name)
    return dict(sorted(found.items()))


def _entry_points() -> dict[str, str]:
    return {entry.name: entry.module for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except UserError as error:
        raise UserError(f"{module}: {error}", where="--plugin") from None
    except BROKEN as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            known = _entry_points()
            hint = f"; {nearest(module, known)}" if known else ""
            raise UserError(
                f"there is no module {missing!r}; start from the folder that holds it, or install it{hint}",
                where="--plugin",
            ) from None
        raise UserError(
            f"{module} cannot be imported: {type(error).__name__}: {error}{_place(error)}", where="--plugin"
        ) from None


def _place(error: BaseException) -> str:
    """Return where in the plug-in an import broke; a syntax error says it itself."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and PACKAGE not in frame.filename]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own and not isinstance(error, SyntaxError) else ""


def _files(root: Path, name: str) -> Iterator[Path]:
    """Yield the source files of a module below ``root``: its own, and those of the packages around it."""
    folder = root
    for part in name.split("."):
        if (path := folder / f"{part}.py").is_file():
            yield path
        folder = folder / part
        if (path := folder / "__init__.py").is_file():
            yield path


def _names(text: str, path: Path, root: Path) -> Iterator[str]:
    """Yield the names of all modules that a source imports, or names as ``module:Class``."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise UserError(f"is not valid Python: {error.msg}", where=f"{path}:{error.lineno}") from None
    package = path.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*around, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)
        elif isinstance(node, ast.Constant) and (found := IMPLEMENTATION.fullmatch(str(node.value))):
            yield found[1]
