"""What ``engine.py`` times, one contender in each process: ``contenders.py NAME --trials N --reports R``.

Every contender runs N trials that report one number R times and do nothing else, at most 2 at a time on 2
CPUs of a Ray of its own (Optuna: 2 threads). The last line printed is JSON: seconds of ``ray.init``, from the
call that runs the trials to their end, and from the start of the first trial to the end of the last.

Ray runs without dashboard and without its progress table (verbose=0), for all contenders alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported, as the recipes do

CPUS = 2
ARMS = {
    "none": "{regularizer: none}",
    "sar": "{}",
    "no_pull": "{regularizer.pull_weight: 0.0}",
    "always": "{regularizer.gate: always}",
}
TEXT = """\
# What does a trial cost that does nothing?
study: engine
base: [data=digit_scenes, training.steps={reports}, training.eval_every=1]
ablation:
  reference: none
  arms: {{{arms}}}
search:
  parameters:
    optim.lr: {{low: 0.001, high: 0.03, log: true}}
    optim.weight_decay: {{low: 0.00001, high: 0.1, log: true}}
  trials_per_arm: {trials}
  batch: {batch}
  sampler: qmc
confirm: {{seeds: 1}}
"""


def note_start(path: str) -> None:
    """Append the time at which a trial starts."""
    with Path(path).open("a") as handle:
        handle.write(f"{time.time()!r}\n")


@contextlib.contextmanager
def local_ray(marks: dict[str, float]) -> Iterator[None]:
    """Start a Ray of our own and note the seconds."""
    import ray

    begun = time.time()
    ray.init(
        address="local",
        num_cpus=CPUS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    marks["init"] = time.time() - begun
    yield
    ray.shutdown()


def sarx(trials: int, reports: int, folder: Path, marks: dict[str, float]) -> None:
    """Time the real engine, searcher, ledger and TensorBoard files with a host that trains nothing."""
    from sarx.cluster.resources import prepare_environment

    prepare_environment()
    import ray
    from simulated import make_study

    from sarx.cluster.driver import fit
    from sarx.cluster.monitor import Monitor
    from sarx.cluster.trial import TrialHost
    from sarx.search.engine import Engine
    from sarx.study.identity import training_code, trial_id
    from sarx.study.ledger import Ledger
    from sarx.study.storage import open_folder

    starts = str(folder / "starts")

    class NoOpHost(TrialHost):
        """Reports one number per epoch and trains nothing."""

        def start(self, work: Any) -> Iterator[Any]:
            note_start(starts)
            epochs = work.segment.until
            for epoch in range(work.segment.start + 1, epochs + 1):
                yield SimpleNamespace(
                    epoch=epoch,
                    step=epoch,
                    duration_s=0.0,
                    metrics={"val/miou": work.segment.config["optim"]["lr"]},
                    diverged=False,
                    last=epoch == epochs,
                )

    search = trials // len(ARMS) - 1  # and one confirm trial
    batch = next(size for size in (4, 7, 5, 3, 2, 1) if search % size == 0)
    arms_text = ", ".join(f"{name}: {options}" for name, options in ARMS.items())
    text = TEXT.format(arms=arms_text, reports=reports, trials=search, batch=batch)
    study, arms = make_study(text, folder)
    code = training_code().digest
    place = open_folder(folder, study.study)
    shutdown = ray.shutdown

    def end(*given: Any, **named: Any) -> None:
        marks.setdefault("end", time.time())
        shutdown(*given, **named)

    with local_ray(marks), Ledger(place.ledger) as ledger:
        ray.shutdown = end  # the driver's last act
        engine = Engine(
            study, arms, ledger, lambda config: trial_id(config, data_fingerprint="", code=code), code
        )
        marks["begun"] = time.time()
        fit(study, engine, place, Monitor(), host=NoOpHost)
        ray.shutdown = shutdown
        done, _ = engine.spent()
        boards = len(list(place.tensorboard.rglob("events.*")))
    assert engine.done
    assert (done, boards) == (trials, trials), f"{done} trials and {boards} boards"


def ray_default(trials: int, reports: int, folder: Path, marks: dict[str, float]) -> None:
    """Time Tune as the first page of its documentation has it: a function trainable, an actor per trial."""
    from ray import tune

    starts = str(folder / "starts")

    def objective(config: dict[str, Any]) -> None:
        note_start(starts)
        for _ in range(reports):
            tune.report({"score": config["x"]})

    tune_and_check(objective, trials, folder, marks)


def ray_reuse(trials: int, reports: int, folder: Path, marks: dict[str, float]) -> None:
    """Time Tune with a class trainable whose actors serve trial after trial."""
    from ray import tune

    starts = str(folder / "starts")

    class Trainable(tune.Trainable):
        """Reports one number per step."""

        def setup(self, config: dict[str, Any]) -> None:
            self.x, self.reported = config["x"], 0

        def step(self) -> dict[str, Any]:
            if not self.reported:  # Tune sets up more actors than it uses
                note_start(starts)
            self.reported += 1
            return {"score": self.x, "done": self.reported == reports}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

    tune_and_check(Trainable, trials, folder, marks, reuse_actors=True)


def ray_train(trials: int, reports: int, folder: Path, marks: dict[str, float]) -> None:
    """Time the documented pattern: a Tune function that builds a TorchTrainer with one worker.

    The function and the worker occupy a CPU each, so that one trial runs at a time.
    """
    import ray.train
    from ray import tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    starts, storage = str(folder / "starts"), str(folder / "train")

    def worker(config: dict[str, Any]) -> None:
        for _ in range(reports):
            ray.train.report({"score": config["x"]})

    def objective(config: dict[str, Any]) -> None:
        note_start(starts)
        TorchTrainer(
            worker,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(
                name=f"train-{tune.get_context().get_trial_id()}",
                storage_path=storage,
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    tune_and_check(objective, trials, folder, marks, max_concurrent_trials=1)


def tune_and_check(
    trainable: Any, trials: int, folder: Path, marks: dict[str, float], **options: Any
) -> None:
    """Run a trainable with Tune and make sure that all trials ended well."""
    from ray import tune

    with local_ray(marks):
        marks["begun"] = time.time()
        results = tune.Tuner(
            trainable,
            param_space={"x": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(num_samples=trials, **options),
            run_config=tune.RunConfig(
                storage_path=str(folder / "tune"),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # there is nothing to keep
            ),
        ).fit()
        marks["end"] = time.time()
        assert not results.errors
        assert sum("score" in (result.metrics or {}) for result in results) == trials


def optuna_in_process(trials: int, reports: int, folder: Path, marks: dict[str, float]) -> None:
    """Time Optuna: random sampler, study in memory, two threads."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    starts = str(folder / "starts")

    def objective(trial: optuna.Trial) -> float:
        note_start(starts)
        x = trial.suggest_float("x", 0.0, 1.0)
        for step in range(reports):
            trial.report(x, step)
        return x

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    marks["begun"] = time.time()
    study.optimize(objective, n_trials=trials, n_jobs=CPUS)
    marks["end"] = time.time()
    assert len(study.trials) == trials


CONTENDERS: dict[str, Callable[[int, int, Path, dict[str, float]], None]] = {
    "sarx": sarx,
    "ray-reuse": ray_reuse,
    "ray-default": ray_default,
    "ray-train": ray_train,
    "optuna": optuna_in_process,
}


def main() -> None:
    """Run one contender in a folder that is removed afterwards, and print its seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--reports", type=int, required=True)
    options = parser.parse_args()
    marks: dict[str, float] = {"init": 0.0}
    with tempfile.TemporaryDirectory(prefix="sarx-engine-") as folder:
        CONTENDERS[options.name](options.trials, options.reports, Path(folder), marks)
        starts = [float(line) for line in (Path(folder) / "starts").read_text().split()]
    assert len(starts) == options.trials, f"{len(starts)} trials started"
    seconds = {
        "init": marks["init"],
        "run": marks["end"] - marks["begun"],
        "trials": marks["end"] - min(starts),
    }
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
