"""TensorBoard on a study, or on all: ``python -m sarx.boards [STUDY] [options of tensorboard]``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sarx.study.urls import Url

HOST = ("--host", "127.0.0.1")
REFRESH_S = 30.0
"""Seconds between two looks at an object store."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run TensorBoard until Ctrl-C; return its exit code, or 2 for a user's mistake.

    The storage is that of SARX_STORAGE, else ``results/``. From an object store the curves are copied to the
    cache first, and what has changed every ``REFRESH_S``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    from sarx.config.errors import exit_code
    from sarx.study.store import store_errors

    def told() -> int:
        with store_errors():
            return run(given)

    return exit_code(told, "stopped")


def run(given: list[str]) -> int:
    """Show what is wanted."""
    from sarx.study.storage import storage_place
    from sarx.study.urls import Url

    study = given.pop(0) if given and not given[0].startswith("-") else ""
    root = storage_place(None)
    command = [sys.executable, "-m", "tensorboard.main", *HOST]
    if not isinstance(root, Url):
        os.execv(sys.executable, [*command, "--logdir", str(root / study), *given])
    place = copies(root)
    bring(root, study, place)
    print(f"curves of {root / study if study else root}, looked at every {REFRESH_S:g} s", flush=True)
    with subprocess.Popen([*command, "--logdir", str(place / study), *given]) as board:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return board.wait(REFRESH_S)
                with contextlib.suppress(OSError):  # the next look may find the store again
                    bring(root, study, place)
        finally:
            board.terminate()


def copies(root: Url) -> Path:
    """Return the folder of this machine for the curves of a storage; a cache."""
    from sarx.study.storage import working_copy

    return working_copy(root / "curves").parent / ".curves"


def bring(root: Url, study: str, place: Path) -> int:
    """Copy the TensorBoard files that have changed, of one study or of all; return how many.

    Raises:
        UserError: If there is no such study.
        StoreError: If the store refuses or gives no answer.
    """
    from sarx.study.store_object import store_of
    from sarx.study.studies import find_study, study_folders

    count = 0
    names = [find_study(root, study).name] if study else [found.name for found in study_folders(root)]
    for name in names:
        store = store_of(root / name)
        for item in store.listing("tensorboard"):
            path = place / name / item.name
            if path.exists() and path.stat().st_size == item.size:  # they only grow
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            coming = path.with_name(f".{path.name}.coming")
            store.fetch(item.name, coming)
            coming.replace(path)
            count += 1
    return count


if __name__ == "__main__":
    sys.exit(main())
