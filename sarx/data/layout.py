"""The files of a data set as they lie on disk: found, paired and listed without being opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sarx.config.errors import UserError
from sarx.config.schema.roots import DATA

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Layout:
    """What must lie below ``data.root``.

    Attributes:
        name: Name of the data set.
        folders: Folders (or files) that are right below the root.
        expected: The whole layout in one line.
        source: Where to get the data, in one line.
    """

    name: str
    folders: tuple[str, ...]
    expected: str
    source: str


@dataclass(frozen=True, slots=True)
class File:
    """Path below the root, with ``/``, and size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its label map."""

    image: File
    mask: File


def find_root(root: str, layout: Layout) -> Path:
    """Return the folder of a data set once the layout's first level is there.

    Raises:
        UserError: Naming ``data.root``, what is expected below it, and where to get the data or which other
            folder looks right.
    """
    wanted = f"data={layout.name} expects {layout.expected}"
    if not root:
        raise UserError(f"not set, nor {DATA}; {wanted}. To get the data: {layout.source}", key="data.root")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(
            f"there is no folder {path}; {wanted}. To get the data: {layout.source}", key="data.root"
        )
    missing = _missing(path, layout)
    if missing:
        near = [place for place in _around(path) if not _missing(place, layout)]
        cure = f"; {near[0]} looks right" if near else f". To get the data: {layout.source}"
        raise UserError(f"{path} has no {' and no '.join(missing)}; {wanted}{cure}", key="data.root")
    return path


def _missing(path: Path, layout: Layout) -> list[str]:
    return [name for name in layout.folders if not (path / name).exists()]


def _around(path: Path) -> Iterable[Path]:
    """Yield the folders one and two levels above and one level below."""
    yield path.absolute().parent
    yield path.absolute().parent.parent
    try:
        yield from sorted(child for child in path.iterdir() if child.is_dir())
    except OSError:
        return


def list_files(root: Path, folder: str, endings: tuple[str, ...]) -> dict[str, File]:
    """List the files below ``root/folder`` whose name has one of the endings, sub-folders included.

    Returns:
        Path below ``folder`` without the ending -> file. Hidden files are left out.

    Raises:
        UserError: If the folder cannot be read, or if two files differ in nothing but their ending.
    """
    found: dict[str, File] = {}
    lowered_endings = tuple(ending.lower() for ending in endings)
    pending = [""]
    while pending:
        inner = pending.pop()
        place = root / folder / inner
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    shown = f"{inner}{entry.name}"
                    if entry.name.startswith("."):
                        continue
                    lowered = entry.name.lower()
                    if not lowered.endswith(lowered_endings):
                        if entry.is_dir():
                            pending.append(f"{shown}/")
                        continue
                    ending = next(end for end in lowered_endings if lowered.endswith(end))
                    key = shown[: -len(ending)]
                    if key in found:
                        other = found[key].path
                        raise UserError(
                            f"and {other} are one image with two endings", where=str(place / entry.name)
                        )
                    try:
                        size = entry.stat().st_size
                    except OSError as error:  # a link to nothing
                        raise UserError(
                            f"cannot be read: {error.strerror or error}", where=str(place / entry.name)
                        ) from None
                    found[key] = File(f"{folder}/{shown}", size)
        except OSError as error:
            raise UserError(f"cannot be listed: {error.strerror or error}", where=str(place)) from None
    return dict(sorted(found.items()))


def pair_up(
    root: Path, images: Mapping[str, File], masks: Mapping[str, File], expected_mask: str
) -> tuple[Pair, ...]:
    """Return every image with the label map of the same key.

    Args:
        root: Folder of the data set.
        images: Key -> image.
        masks: Key -> label map; those without an image are left out.
        expected_mask: Path of a missing label map below the root, with ``{key}``.

    Raises:
        UserError: If an image has no label map.
    """
    without = [key for key in images if key not in masks]
    if without:
        first = without[0]
        raise UserError(
            f"there is no such label map for {images[first].path} ({len(without)} of {len(images)} images "
            "have none)",
            where=str(root / expected_mask.format(key=first)),
        )
    return tuple(Pair(images[key], masks[key]) for key in images)


def read_list(path: Path) -> list[str]:
    """Return the lines of a list file without blank ones.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError("there is no such list", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None
    return [line.strip() for line in lines if line.strip()]


def pick(
    root: Path, names: list[str], files: Mapping[str, File], list_file: str, folder: str
) -> dict[str, File]:
    """Return the files that a list names, by name.

    Raises:
        UserError: If a listed file is not there, or is listed twice.
    """
    picked: dict[str, File] = {}
    for name in names:
        if name in picked:
            raise UserError(f"{name} is listed twice", where=str(root / list_file))
        if name not in files:
            raise UserError(f"{name} is not in {root / folder}", where=str(root / list_file))
        picked[name] = files[name]
    return picked
