"""Checkpoints of a training: rank 0 alone writes them, if wanted in a thread, and chooses where to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from sarx.config.errors import UserError
from sarx.training import checkpoint
from sarx.training.distributed import is_main, on_main, rank, together
from sarx.training.trainer import Trainer


class Writer:
    """Writes checkpoints into a folder; every rank calls its methods, rank 0 writes.

    With ``threaded`` a checkpoint is turned into bytes at once and written and forced to disk in a thread
    while training goes on. At most one is on its way: the next waits for it.
    """

    def __init__(self, folder: Path | None, *, threaded: bool) -> None:
        """Write into ``folder``; None writes nothing."""
        self.folder = folder
        self._threads = ThreadPoolExecutor(1) if threaded and folder is not None and is_main() else None
        self._pending: Future[Path] | None = None

    def save(self, epoch: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write what ``state`` returns, which rank 0 alone calls.

        Raises:
            UserError: On every rank, if this checkpoint or the one still on its way cannot be written.
        """
        if self.folder is not None:
            on_main(lambda: self._save(epoch, state()))

    def wait(self) -> None:
        """Wait until the checkpoint that is on its way is on disk.

        Raises:
            UserError: On every rank, if it cannot be written.
        """
        if self.folder is not None:
            on_main(self._finish)

    def close(self) -> None:
        """End the thread once its checkpoint is on disk; no rank waits for another here.

        Raises:
            UserError: On rank 0, if it cannot be written.
        """
        if self._threads is not None:
            self._threads.shutdown()
            self._finish()

    def _save(self, epoch: int, state: dict[str, Any]) -> None:
        assert self.folder is not None
        self._finish()
        if self._threads is None:
            checkpoint.save(self.folder, epoch, state)
            return
        raw = checkpoint.serialise(state)
        self._pending = self._threads.submit(checkpoint.write, self.folder, epoch, raw)

    def _finish(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def resume(folders: Sequence[Path], trainer: Trainer, map_location: torch.device) -> dict[str, Any] | None:
    """Load the newest checkpoint that verifies and fits, and return it; None: start from the beginning.

    Rank 0 chooses, and sets aside what is damaged; the other ranks read the file that it names.

    Args:
        folders: Of the attempts, newest first, which all ranks can read.
        trainer: What to load it into: module, optimizer and gradient scaler.
        map_location: Where tensors are loaded to.

    Raises:
        UserError: On a rank that cannot read the file.
        RuntimeError: On the ranks that can, if another cannot.
    """
    epochs = trainer.config.training.epochs
    chosen: list[dict[str, Any]] = []

    def choose() -> str | None:
        found = checkpoint.fitting(folders, trainer.module, trainer.optimizer, epochs, map_location)
        chosen.extend([] if found is None else [found[1]])
        return None if found is None else str(found[0])

    name = on_main(choose)
    if name is None:
        return None

    def load() -> dict[str, Any]:
        state = chosen[0] if chosen else read(Path(name), map_location)
        trainer.module.load_state_dict(state["module"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        if trainer.scaler.is_enabled() and state.get("scaler"):
            trainer.scaler.load_state_dict(state["scaler"])
        return state

    return together(load)


def read(path: Path, map_location: torch.device) -> dict[str, Any]:
    """Return the checkpoint that rank 0 has verified.

    Raises:
        UserError: If it is not there, or is another one here.
    """
    try:
        return checkpoint.load(path, map_location)
    except checkpoint.Damaged as error:
        raise UserError(
            f"rank {rank()} cannot continue from the checkpoint that rank 0 has chosen: it {error}; all "
            "ranks need the same storage",
            where=str(path),
        ) from error


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Return what a checkpoint holds of module, optimizer and gradient scaler."""
    state = {"module": trainer.module.state_dict(), "optimizer": trainer.optimizer.state_dict()}
    return state | ({"scaler": trainer.scaler.state_dict()} if trainer.scaler.is_enabled() else {})
