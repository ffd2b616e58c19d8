"""Checkpoints: written whole or not at all, verified by checksum, loaded with weights_only."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

KEPT = 2


def save(folder: Path, epoch: int, state: dict[str, Any], name: str = "epoch") -> Path:
    """Write a checkpoint with its SHA-256 beside it; the two last of a folder are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    raw = buffer.getvalue()
    path = folder / f"{name}-{epoch:05d}.pt"
    _write(path.with_suffix(".sha256"), hashlib.sha256(raw).hexdigest().encode())
    _write(path, raw)
    for old in sorted(folder.glob(f"{name}-*.pt"))[:-KEPT]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)
    return path


def _write(path: Path, raw: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as handle:
        handle.write(raw)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def newest(folders: Sequence[Path], map_location: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Return the newest checkpoint that verifies, looking through attempts from the newest to the oldest.

    A file whose checksum does not match is set aside under a name ending in ``.bad`` and named on stdout, and
    the one before it is used.
    """
    for folder in folders:
        for path in sorted(folder.glob("epoch-*.pt"), reverse=True):
            raw = path.read_bytes()
            stated = path.with_suffix(".sha256")
            if stated.exists() and hashlib.sha256(raw).hexdigest() == stated.read_text().strip():
                state: dict[str, Any] = torch.load(
                    io.BytesIO(raw), map_location=map_location, weights_only=True
                )
                return state
            path.replace(path.with_suffix(".bad"))
            print(f"checkpoint {path} is damaged; set aside as {path.with_suffix('.bad').name}", flush=True)
    return None


def remove(folder: Path) -> None:
    """Delete the resumable checkpoints of one attempt; anything else in the folder stays."""
    for pattern in ("epoch-*.pt", "epoch-*.sha256", "epoch-*.bad", ".epoch-*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
