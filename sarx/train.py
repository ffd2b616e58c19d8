"""Train once, without Ray: ``python -m sarx.train model=fcn_test_convnext regularizer=sar``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.train",
        description="Train once; the same command continues from its last checkpoint.",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="e.g. regularizer=sar optim.lr=0.01"
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
    parser.add_argument("--storage", help="folder of the results (default: SARX_STORAGE, else results/)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return the exit code: 0, 1 if it diverged, 2 for a user's mistake."""
    options = parser().parse_args(arguments)
    from sarx.config.errors import exit_code

    return exit_code(lambda: run(options), "stopped; the same command continues from the last checkpoint")


def run(options: argparse.Namespace) -> int:
    """Compose the options, or take those of a study's trial, and train."""
    from sarx.config import plugins
    from sarx.study.storage import storage_root
    from sarx.training import single

    plugins.load(options.plugin)
    root = storage_root(options.storage)
    recorded = single.recorded_trial(root, options.trial) if options.trial is not None else None
    if recorded is None:
        config = single.new_config(options.overrides, options.report)
    else:
        config = single.changed_config(recorded.config, options.overrides, options.report)
    threads = options.threads if options.threads is not None else recorded.threads if recorded else 1
    return single.train_once(config, root, threads, recorded)


if __name__ == "__main__":
    sys.exit(main())
