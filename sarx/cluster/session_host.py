"""The trial host of trials with several workers: a Tune trainable that drives a session."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sarx.cluster.failures import NO_PLACE
from sarx.cluster.orphans import free_orphans
from sarx.cluster.resources import grows
from sarx.cluster.segment_run import Start, decode_work, start_training
from sarx.cluster.trial import TrialHost

if TYPE_CHECKING:
    from sarx.cluster.session import Session

ORPHANS_S = 15.0
"""Seconds after which workers that are not there yet may lack a place that a lost session still holds."""
PLACE_S = 180.0
"""Seconds after which a segment whose workers cannot be placed is handed back."""
GROW_S = 1800.0
"""The same on a cluster that starts nodes on demand: they boot and pull an image first."""


class SessionHost(TrialHost):
    """Runs segments on the workers of a session; occupies nothing itself.

    A failed segment is an answer like any other, so that Tune keeps the host and the session its workers.
    """

    starting: Start = staticmethod(start_training)
    """Makes the results of a segment, on every rank; a subclass may have another one."""
    _session: Session | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first segment."""
        self._take_text(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next segment."""
        self._take_text(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Return what the next epoch gave, or how the segment failed.

        Raises:
            RuntimeError: If the workers find no place or cannot be started; Tune then ends this host.
        """
        session = self._open()
        since, patience = time.monotonic(), GROW_S if grows() else PLACE_S
        while not (answer := session.take()):
            if session.complete():
                since = time.monotonic()
            elif time.monotonic() - since > patience:
                raise RuntimeError(f"{NO_PLACE} within {patience:g} s")
            elif time.monotonic() - since > ORPHANS_S:
                free_orphans()
        if answer["done"] and self._work.resources.session == "cold":
            self.cleanup()
        return answer

    def cleanup(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            session.end()

    def _take_text(self, config: dict[str, Any]) -> None:
        self._text, self._posted = config["segment"], False
        self._work = decode_work(self._text)

    def _open(self) -> Session:
        """Return the session, with the segment posted."""
        if self._session is None:
            from sarx.cluster.session import Session  # brings torch, which the driver does without

            scratch = self._work.folder.root / ".tune"
            self._session = Session(self._work.resources, self.starting, scratch)
        if not self._posted:
            self._session.post(self._text)
            self._posted = True
        return self._session
