"""What ``session.py`` times, one contender in each process: ``session_contenders.py NAME --trials N``.

The last line printed is JSON: at how many seconds after ``ray.init`` each trial had ended.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported, as the recipes do

TEXT = """\
# What does a trial on two workers cost that does nothing?
study: session
base: [data=digit_scenes, regularizer=none, training.steps=1, training.eval_every=1]
ablation:
  reference: only
  arms: {{only: {{}}}}
search:
  parameters:
    optim.lr: {{low: 0.001, high: 0.03, log: true}}
  trials_per_arm: {trials}
  batch: 1
confirm: {{seeds: 1}}
resources: {{num_workers: 2, session: {session}}}
"""


def reduce_together(work: Any) -> Iterator[Any]:
    """Reduce a tensor with the other worker and report one number."""
    import torch
    from torch import distributed as dist

    value = torch.ones(1)
    dist.all_reduce(value)
    yield SimpleNamespace(
        epoch=1, step=1, duration_s=0.0, metrics={"val/miou": float(value)}, diverged=False, last=True
    )


def start_ray() -> float:
    """Start a Ray of our own; return when it was there."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return time.time()


def sarx(trials: int, folder: Path, session: str) -> list[float]:
    """Time sarx; the last of the trials is the confirm trial."""
    from sarx.cluster.resources import prepare_environment

    prepare_environment()
    from simulated import identify, make_study

    from sarx.cluster.driver import fit
    from sarx.cluster.monitor import Monitor
    from sarx.cluster.session_host import SessionHost
    from sarx.search.engine import Engine
    from sarx.study.ledger import Ledger
    from sarx.study.storage import open_folder

    class Host(SessionHost):
        """Runs ``reduce_together`` in place of a training."""

        starting = staticmethod(reduce_together)

    study, arms = make_study(TEXT.format(trials=trials - 1, session=session), folder)
    place = open_folder(folder, study.study)
    begun = start_ray()
    with Ledger(place.ledger) as ledger:
        engine = Engine(study, arms, ledger, identify)
        fit(study, engine, place, Monitor(), host=Host)
        return [event["time"] - begun for event in ledger.events if event["event"] == "trial_finished"]


def documented(trials: int, folder: Path) -> list[float]:
    """Time Ray's documented pattern."""
    import ray.train
    from ray import tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    ends, storage = folder / "ends", str(folder / "train")

    def worker(config: dict[str, Any]) -> None:
        import torch
        from torch import distributed as dist

        value = torch.ones(1)
        dist.all_reduce(value)
        ray.train.report({"score": float(value) + config["x"]})

    def objective(config: dict[str, Any]) -> None:
        TorchTrainer(
            worker,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(num_workers=2),
            run_config=ray.train.RunConfig(
                name=f"train-{tune.get_context().get_trial_id()}",
                storage_path=storage,
                callbacks=[TuneReportCallback()],
            ),
        ).fit()
        with ends.open("a") as handle:
            handle.write(f"{time.time()!r}\n")

    begun = start_ray()
    outcome = tune.Tuner(
        tune.with_resources(objective, {"memory": 2**20}),  # leaves the 2 CPUs to its workers
        param_space={"x": tune.uniform(0.0, 1.0)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    assert not outcome.errors
    return [float(line) - begun for line in ends.read_text().split()]


def main() -> None:
    """Run one contender in a folder that is removed afterwards, and print when its trials ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("documented", "cold", "warm"))
    parser.add_argument("--trials", type=int, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sarx-session-") as name:
        folder = Path(name)
        if options.name == "documented":
            ends = documented(options.trials, folder)
        else:
            ends = sarx(options.trials, folder, options.name)
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
