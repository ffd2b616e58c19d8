"""Where results lie, and the refusal of places where they would be lost."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sarx.config.errors import UserError

SESSION = re.compile(r"session_(latest$|\d{4}-\d{2}-\d{2}_)")  # Ray's name for a session's folder


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study and the names inside it."""

    root: Path

    @property
    def ledger(self) -> Path:
        """Folder of the event log."""
        return self.root / "ledger"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard files."""
        return self.root / "tensorboard"

    @property
    def report(self) -> Path:
        """Folder of tables and figures."""
        return self.root / "report"

    def trial(self, trial_id: str) -> Path:
        """Folder of one trial."""
        return self.root / "trials" / trial_id

    def attempt(self, trial_id: str, attempt: int) -> Path:
        """Folder of the checkpoints of one attempt at a trial."""
        return self.trial(trial_id) / f"attempt-{attempt}"


def storage_root(given: str | None) -> Path:
    """Return the storage folder: ``--storage``, else SARX_STORAGE, else ``results/`` here.

    Raises:
        UserError: If it lies inside a folder of Ray's that disappears with the session.
    """
    raw = given or os.environ.get("SARX_STORAGE") or "results"
    try:
        root = Path(raw).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{raw} is not a folder ({error})", where="storage") from None
    if any(map(SESSION.match, root.parts)) or {"runtime_resources", "working_dir_files"} <= {*root.parts}:
        raise UserError(
            f"{root} lies inside Ray's session folder and would vanish with it; "
            "give --storage DIR or set SARX_STORAGE to a lasting folder that all nodes see",
            where="storage",
        )
    return root


SINGLE = "train"
"""Folder of single trainings; no study may have this name."""


def open_folder(root: Path, study: str) -> StudyFolder:
    """Make the study's folder; that of single trainings has neither ledger nor report.

    Raises:
        UserError: If it cannot be written.
    """
    folder = StudyFolder(root / study)
    try:
        parts = [folder.tensorboard, folder.root / "trials"]
        parts += [] if study == SINGLE else [folder.ledger, folder.report]
        for path in parts:
            path.mkdir(parents=True, exist_ok=True)
        probe = folder.root / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder.root} cannot be written ({error.strerror}); give --storage DIR or set SARX_STORAGE",
            where="storage",
        ) from None
    return folder
