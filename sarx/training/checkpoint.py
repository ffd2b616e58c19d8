"""Checkpoints: written whole or not at all, verified by checksum, loaded with weights_only."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sarx.config.errors import UserError

KEPT = 2
PARTS = {
    "epoch": int,
    "totals": dict,
    "metrics": dict,
    "duration_s": float,
    "module": dict,
    "optimizer": dict,
}
"""What a resumable checkpoint holds."""


def save(folder: Path, epoch: int, state: dict[str, Any], name: str = "epoch") -> Path:
    """Write a checkpoint with its SHA-256 beside it; the two last of a folder are kept.

    Raises:
        UserError: If it cannot be written, naming the folder and why; those before it are as they were.
    """
    return write(folder, epoch, serialise(state), name)


def serialise(state: dict[str, Any]) -> bytes:
    """Return the bytes of a checkpoint; later changes of its tensors do not reach them."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def write(folder: Path, epoch: int, raw: bytes, name: str = "epoch") -> Path:
    """Write the bytes of a checkpoint; see ``save``."""
    path = folder / f"{name}-{epoch:05d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write({path.with_suffix(".sha256"): hashlib.sha256(raw).hexdigest().encode(), path: raw})
        for old in sorted(folder.glob(f"{name}-*.pt"))[:-KEPT]:
            old.unlink()
            old.with_suffix(".sha256").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"no checkpoint can be written here ({error.strerror or error}); free space or make the folder "
            "writable",
            where=str(folder),
        ) from error
    return path


def _write(contents: dict[Path, bytes]) -> None:
    """Write files beside their names, then rename them all; a failure leaves nothing behind."""
    beside = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, raw in contents.items():
            with beside[path].open("wb") as handle:
                handle.write(raw)
                handle.flush()
                os.fsync(handle.fileno())
        for path in contents:
            beside[path].replace(path)
    except OSError:
        for temporary in beside.values():
            with contextlib.suppress(OSError):  # what matters is why it could not be written
                temporary.unlink(missing_ok=True)
        raise


def newest(folders: Sequence[Path], map_location: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Return the newest checkpoint that verifies; see ``verified``."""
    return next((state for _, state in verified(folders, map_location)), None)


def verified(
    folders: Sequence[Path], map_location: torch.device | str = "cpu"
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the checkpoints that verify, looking through attempts from the newest to the oldest.

    A file that cannot be read, has no checksum, or does not match it is set aside under a name ending in
    ``.bad`` and named on stdout, and the one before it comes next.

    Raises:
        pickle.UnpicklingError: If one that matches its checksum would run code when loaded.
    """
    for folder in folders:
        for path in sorted(folder.glob("epoch-*.pt"), reverse=True):
            try:
                state = load(path, map_location)
            except Damaged as error:
                set_aside(path, str(error))
                continue
            yield path, state


class Damaged(Exception):
    """A checkpoint that cannot be used; the text says why."""


def load(path: Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Return a checkpoint that verifies.

    Raises:
        Damaged: If it cannot be read, has no checksum, or does not match it.
        pickle.UnpicklingError: If it matches its checksum and would run code when loaded.
    """
    try:
        raw = path.read_bytes()
        stated = path.with_suffix(".sha256").read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        name = Path(error.filename or path).name
        raise Damaged(f"is damaged: {name} cannot be read ({error.strerror or error})") from error
    if hashlib.sha256(raw).hexdigest() != stated:
        raise Damaged("is damaged: its checksum does not match")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(raw), map_location=map_location, weights_only=True)
    except (RuntimeError, EOFError) as error:
        raise Damaged(f"is damaged: {' '.join(str(error).split())[:200]}") from error
    return state


def set_aside(path: Path, why: str) -> None:
    """Rename a checkpoint that cannot be used, so that nothing looks at it again, and say so."""
    aside = path.with_suffix(".bad")
    try:
        path.replace(aside)
        where = f"set aside as {aside.name}"
    except OSError as error:
        where = f"left where it is ({error.strerror or error})"
    print(f"checkpoint {path} {why}; {where}", flush=True)


def fitting(
    folders: Sequence[Path],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    map_location: torch.device | str = "cpu",
) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that verifies and fits, and where it lies; nothing is loaded.

    One that does not fit is set aside like a damaged one.

    Args:
        folders: Of the attempts, newest first.
        module: What is trained.
        optimizer: Its optimizer.
        epochs: Epochs of the whole training.
        map_location: Where tensors are loaded to.
    """
    for path, state in verified(folders, map_location):
        why = misfit(state, module, optimizer, epochs)
        if why is None:
            return path, state
        set_aside(path, f"does not fit: {why}")
    return None


def misfit(state: object, module: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> str | None:
    """Return why a checkpoint is not one of this training, or None; nothing is loaded."""
    if not isinstance(state, dict):
        return f"it is a {type(state).__name__}"
    for part, kind in PARTS.items():
        if not isinstance(state.get(part), kind):
            return f"it has no {part}"
    if not 1 <= state["epoch"] <= epochs:
        return f"it is of epoch {state['epoch']} and the training has {epochs}"
    own, saved = module.state_dict(), state["module"]
    if odd := sorted(own.keys() ^ saved.keys()):
        return f"{odd[0]} is missing here or there"
    for name, value in own.items():
        if getattr(value, "shape", None) != getattr(saved[name], "shape", None):
            return f"{name} has another shape"
    return _optimizer_misfit(state["optimizer"], optimizer)


def _optimizer_misfit(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> str | None:
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if [len(group.get("params", ())) for group in saved.get("param_groups", ())] != sizes:
        return "the optimizer has other parameters"
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entry in saved.get("state", {}).items():
        for value in entry.values():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameters[index].shape:
                return f"the optimizer's state of parameter {index} has another shape"
    return None


def results_before(folders: Sequence[Path], first: int, epoch: int) -> list[dict[str, Any]]:
    """Return what checkpoints hold of the results of epochs ``first`` to ``epoch - 1``, in order.

    Each is ``{epoch, metrics, duration_s}``. Only epochs whose checkpoint is still there are in it: the last
    ``KEPT`` of an attempt.
    """
    found: dict[int, dict[str, Any]] = {}
    for _, state in verified(folders) if first < epoch else ():
        result: dict[str, Any] = {
            key: state[key] for key in ("epoch", "metrics", "duration_s") if key in state
        }
        if len(result) == 3 and first <= result["epoch"] < epoch:
            found.setdefault(result["epoch"], result)
    return [found[known] for known in sorted(found)]


def remove(folder: Path) -> None:
    """Delete the resumable checkpoints of one attempt; anything else in the folder stays."""
    for pattern in ("epoch-*.pt", "epoch-*.sha256", "epoch-*.bad", ".epoch-*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
