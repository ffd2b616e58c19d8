"""Where results lie, and the refusal of places where they would be lost."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sarx.config.errors import UserError
from sarx.study.urls import Place, Url, is_url, parse_url

SESSION = re.compile(r"session_(latest$|\d{4}-\d{2}-\d{2}_)")  # Ray's name for a session's folder


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study and the names inside it.

    Attributes:
        root: The folder; of a study on an object store this machine's working copy.
        url: Where on an object store the study lies, if it does.
    """

    root: Path
    url: Url | None = None

    @property
    def place(self) -> Place:
        """Where the study lies."""
        return self.url or self.root

    def shown(self, path: Path) -> Place:
        """What users are told of a path in the folder: where it lies for good."""
        return self.url / path.relative_to(self.root).as_posix() if self.url else path

    @property
    def ledger(self) -> Path:
        """Folder of the event log; not of a study on an object store."""
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
        UserError: If it is an object store, or a folder of Ray's that disappears with the session.
    """
    place = storage_place(given)
    if isinstance(place, Url):
        raise UserError(
            f"{place}: this command needs a folder; on an object store tune, status, analysis, tensorboard "
            "and the check of a cluster work. Copy the study to a folder and give --storage DIR",
            where="storage",
        )
    return place


def storage_place(given: str | None) -> Place:
    """Return where studies lie, as ``storage_root``, or a URL of an object store.

    Raises:
        UserError: If it is not usable.
    """
    raw = given or os.environ.get("SARX_STORAGE") or "results"
    if is_url(raw):
        place = parse_url(raw)
        if isinstance(place, Url):
            return place
        raw = str(place)
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


def working_copy(study: Url) -> Path:
    """Return the folder on this machine's disk for the files of a study on an object store; a cache."""
    own, shared = os.environ.get("SARX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    cache = Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "sarx"
    digest = hashlib.sha256(str(study.parent).encode()).hexdigest()[:16]
    return cache.absolute() / "storage" / digest / study.name


SINGLE = "train"
"""Folder of single trainings; no study may have this name."""


def open_study_folder(place: Place, study: str) -> StudyFolder:
    """Make the folder of a study, on an object store its working copy, once that store can be used.

    Raises:
        UserError: If it cannot be written.
    """
    if not isinstance(place, Url):
        return open_folder(place, study)
    from sarx.study.store import check_store
    from sarx.study.store_object import store_of

    url = place / study
    check_store(store_of(url))
    copy = working_copy(url)
    try:
        return StudyFolder(open_folder(copy.parent, study).root, url)
    except UserError:
        raise UserError(
            f"its working copy cannot be written to {copy}; set SARX_CACHE to a folder on a local disk",
            where=str(url),
        ) from None


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
