"""Which study is meant: a folder of the storage that holds a ledger."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from analysis.errors import UserError


def storage_folder(option: str | None) -> Path:
    """Return ``--storage``, else ``$SARX_STORAGE``, else ``results/`` of the current directory."""
    return Path(storage_name(option).removeprefix("file://"))


def storage_name(option: str | None) -> str:
    """Return the storage as it was given: a folder, or the URL of an object store."""
    return option or os.environ.get("SARX_STORAGE") or "results"


def find_study(storage: Path, name: str | None) -> Path:
    """Return the folder of the study ``name``; without a name, of the one whose ledger changed last.

    Raises:
        UserError: no study in ``storage``, or none of this name (with the nearest name).
    """
    folders = {folder.name: folder for folder in _studies(storage)}
    changed = {known: _changed(folder) for known, folder in folders.items()}
    return folders[choose(changed, name, str(storage))]


def choose(changed: Mapping[str, float], name: str | None, storage: str) -> str:
    """Return the name of a study that is there; without a name, of the one that changed last.

    Args:
        changed: When each study changed last, by name.
        name: The name that was given.
        storage: Where the studies lie.

    Raises:
        UserError: no study, or none of this name (with the nearest name).
    """
    if not changed:
        raise UserError(
            f"no study under {storage}: start one with 'python -m sarx.tune STUDY.yaml', "
            "or point --storage or SARX_STORAGE at the folder that holds it"
        )
    if name is None:
        return max(changed, key=lambda known: changed[known])
    if name in changed:
        return name
    close = difflib.get_close_matches(name, changed, n=1, cutoff=0.5)
    names = sorted(changed)
    known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    hint = f"did you mean {close[0]!r}?" if close else f"known: {known}"
    raise UserError(f"no study {name!r} under {storage}; {hint}")


def _studies(storage: Path) -> list[Path]:
    """Return the folders of ``storage`` that hold a ledger."""
    if not storage.is_dir():
        return []
    return [folder for folder in sorted(storage.iterdir()) if (folder / "ledger").is_dir()]


def _changed(study: Path) -> float:
    """Return when the ledger changed last, in seconds since the Unix epoch."""
    files = [*(study / "ledger").glob("*.ndjson"), study / "ledger"]
    return max(file.stat().st_mtime for file in files)
