"""Run a study: ``python -m sarx.tune STUDY.yaml``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.tune", description="Run a study; the same command continues it."
    )
    parser.add_argument(
        "study", type=Path, metavar="STUDY.yaml", help="the study; the same command resumes it"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="after the study: confirm.seeds=2",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="print the plan and its cost, run nothing")
    instead.add_argument(
        "--smoke", action="store_true", help="two steps of every arm and backbone, run nothing"
    )
    parser.add_argument("--arms", metavar="A,B", help="run only these arms now (their names; at every level)")
    parser.add_argument("--phase", choices=("search", "confirm"), help="run only this phase now")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="import your own parts first"
    )
    parser.add_argument("--optuna-storage", metavar="URL", help="show the search to optuna-dashboard there")
    parser.add_argument(
        "--storage", help="folder or s3:// URL of the results (default: SARX_STORAGE, else results/)"
    )
    parser.add_argument("--address", help="Ray cluster to join (default: RAY_ADDRESS, else a local one)")
    parser.add_argument("--on-code-change", choices=("keep", "rerun"), help="finished trials of other code")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study and return the exit code: 0, 1 if an arm lacks confirm trials, 2 for a user's mistake."""
    options = parser().parse_args(arguments)
    from sarx.config.errors import exit_code

    return exit_code(lambda: run(options), "stopped; nothing finished is lost, the same command goes on")


def run(options: argparse.Namespace) -> int:
    """Load, plan, and unless it is a dry run or a smoke test, run the study."""
    from sarx.cluster.launch import check_metrics, check_samplers, describe_search, dry_run, start
    from sarx.cluster.resources import check_local
    from sarx.config import plugins
    from sarx.models.backbone_names import backbone_names
    from sarx.study.design import check_backbones, check_devices, make_arms
    from sarx.study.load import load_study, located
    from sarx.study.only import named_arms
    from sarx.study.plan import describe_plan
    from sarx.study.storage import storage_place
    from sarx.training.smoke import smoke

    plugins.load(options.plugin)
    study, source = load_study(options.study, options.set)
    arms = make_arms(study, source)
    only_arms = named_arms(options.arms, arms)
    check_backbones(arms, source, backbone_names())
    check_devices(study, arms, source)
    check_metrics(study, arms, source)
    check_samplers(study, arms, source)
    if not (options.address or os.environ.get("RAY_ADDRESS")):
        with located(source):
            check_local(study.resources)
    root = storage_place(options.storage)
    print(f"results in {root / study.study}")
    print("\n".join([*describe_plan(study, arms), *describe_search(study, arms)]), flush=True)
    if options.smoke:
        return smoke(arms, study.resources.cpus_per_worker)
    if options.dry_run:
        return dry_run(study, arms)
    return start(study, arms, root, options, only_arms)


if __name__ == "__main__":
    sys.exit(main())
