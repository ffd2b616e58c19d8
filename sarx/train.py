"""Train once: ``python -m sarx.train model=fcn_test_convnext regularizer=sar [resources.num_workers=2]``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

STOPPED = "stopped; the same command continues from the last checkpoint"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.train",
        description="Train once; the same command continues from its last checkpoint.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="e.g. regularizer=sar optim.lr=0.01; resources.num_workers=2 trains through Ray Train",
    )
    parser.add_argument(
        "--report", action="store_true", help="score on the report split after the last epoch"
    )
    parser.add_argument(
        "--threads", type=int, help="CPU threads; one repeats bit for bit (default: 1, or the trial's)"
    )
    parser.add_argument(
        "--trial",
        metavar="STUDY/TRIAL_ID",
        help="run a trial of a study again, outside of the study, with what KEY=VALUE changes",
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="import your own parts first"
    )
    parser.add_argument("--address", help="Ray cluster of several workers (default: RAY_ADDRESS, else local)")
    parser.add_argument("--storage", help="folder of the results (default: SARX_STORAGE, else results/)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return the exit code: 0, 1 if it diverged, 2 for a user's mistake."""
    options = parser().parse_intermixed_args(arguments)
    from sarx.config.errors import exit_code

    return exit_code(lambda: run(options), STOPPED)


def run(options: argparse.Namespace) -> int:
    """Compose the options, or take those of a study's trial, and train."""
    from sarx.config import plugins
    from sarx.study.resources import split_resources
    from sarx.study.storage import storage_root
    from sarx.training import single

    plugins.load(options.plugin)
    root = storage_root(options.storage)
    recorded = single.recorded_trial(root, options.trial) if options.trial is not None else None
    before = {"num_workers": recorded.workers, "cpus_per_worker": recorded.threads} if recorded else {}
    overrides, resources = split_resources(options.overrides, before, options.threads)
    if recorded is None:
        config = single.new_config(overrides, options.report)
    else:
        config = single.changed_config(recorded.config, overrides, options.report)
    if resources.num_workers == 1:
        return single.train_once(config, root, resources.cpus_per_worker, recorded)
    from sarx.cluster.single import train_together

    train_together(config, root, resources, options.address, recorded, STOPPED)


if __name__ == "__main__":
    sys.exit(main())
