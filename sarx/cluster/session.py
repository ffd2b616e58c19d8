"""A session: one Ray Train run whose workers serve one trial after another.

Starting the workers of a trial, and the run around them, takes 10 to 20 s with Ray 2.60; a segment on
workers that are there takes milliseconds. Ray Train places the workers, starts them anew when one is lost,
and changes their number where that is allowed; it never ends for a failed trial.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sarx.cluster.mailbox import Mailbox
from sarx.cluster.ranks import serve
from sarx.cluster.resources import needs_of
from sarx.cluster.segment_run import Start
from sarx.study.schema import Resources

LOOK_S = 5.0
"""Seconds after which the host looks whether the run is still there."""
END_S = 20.0
"""Seconds that the workers have to leave."""
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # prints go to the trial's log
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class NoGroup(Backend):
    """Leaves the process group to the ranks, who form it anew after a failure."""


class RanksFormTheGroup(TorchConfig):
    """A ``TorchConfig`` that sets the GPU of each worker and forms no process group."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Return the backend that does nothing."""
        return NoGroup


class Run(TorchTrainer):
    """A Train run without Ray's cleaner of placement groups (2.60), for which there is no option.

    That is a detached actor of 200 MB on the head, which may stay there for good when the driver is ended, as
    by Ctrl-C. What it is for, sarx.cluster.orphans does, also without the dashboard.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]


class Session:
    """A Train run in a thread of this process, and the mailbox to its workers.

    Args:
        resources: What a trial occupies.
        start: Makes the results of a segment, on every rank.
        scratch: Folder that all nodes see, for what Train itself wants to write.
    """

    def __init__(self, resources: Resources, start: Start, scratch: Path) -> None:
        """Start the run; the workers come later."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(num_cpus=0)(Mailbox)
        self.mailbox: Any = actor.options(scheduling_strategy=here).remote()
        self.error: BaseException | None = None
        options = {"mailbox": self.mailbox, "resources": resources, "start": start}
        self._thread = threading.Thread(
            target=self._fit, args=(trainer(resources, options, scratch),), name="train", daemon=True
        )
        self._thread.start()

    def post(self, work: str) -> None:
        """Let the workers run a segment."""
        ray.get(self.mailbox.post.remote(work))

    def take(self, patience_s: float = LOOK_S) -> dict[str, Any]:
        """Return the next result, or failure, of the segment; ``{}`` if none came in time.

        Raises:
            RuntimeError: If the run has ended by itself.
        """
        answer: dict[str, Any] = ray.get(self.mailbox.take.remote(patience_s))
        if not answer and not self._thread.is_alive():
            raise RuntimeError(f"the workers cannot be started: {self.error}") from self.error
        return answer

    def complete(self) -> bool:
        """Return whether the workers are there."""
        return bool(ray.get(self.mailbox.complete.remote()))

    def end(self) -> bool:
        """Let the workers leave, and wait for it; return whether the run is over."""
        ray.get(self.mailbox.end.remote())
        self._thread.join(END_S)
        ray.kill(self.mailbox)
        return not self._thread.is_alive()

    def _fit(self, run: Run) -> None:
        try:
            run.fit()
        except Exception as error:  # noqa: BLE001  ``take`` tells it
            self.error = error


def trainer(resources: Resources, options: dict[str, Any], scratch: Path) -> Run:
    """Return the Train run of a session."""
    fewest, most = resources.fewest_workers, resources.num_workers
    scaling = ScalingConfig(
        num_workers=most if fewest == most else (fewest, most),  # type: ignore[arg-type]
        use_gpu=bool(resources.gpus_per_worker),
        resources_per_worker=needs_of(resources),
        placement_strategy=resources.placement.upper(),
    )
    return Run(
        serve,
        train_loop_config=options,
        torch_config=RanksFormTheGroup(),
        scaling_config=scaling,
        run_config=RunConfig(
            name=f"session-{uuid.uuid4().hex[:12]}",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=-1),
        ),
    )
