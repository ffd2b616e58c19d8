"""Where studies stand: ``python -m sarx.status [STUDY]``; and what to do with their failed trials."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.status",
        description="Say where studies stand; without STUDY one line for each.",
    )
    parser.add_argument("study", nargs="?", metavar="STUDY", help="name of a study")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--retry-failed",
        action="store_true",
        help="let the trials that failed for good run again (default: of the study that changed last)",
    )
    what.add_argument(
        "--forget",
        metavar="TRIAL_ID",
        help="let a trial's results count no longer and the trial run again; nothing is deleted",
    )
    parser.add_argument("--reason", default="--forget", help="why, for the ledger, with --forget")
    parser.add_argument(
        "--storage", help="folder or s3:// URL of the results (default: SARX_STORAGE, else results/)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and return the exit code: 0, or 2 for a user's mistake."""
    options = parser().parse_args(arguments)
    from sarx.config.errors import exit_code
    from sarx.study.store import store_errors

    def told() -> int:
        with store_errors():
            return run(options)

    try:
        return exit_code(told, "stopped; nothing was changed")
    except BrokenPipeError:  # head, or another reader, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run(options: argparse.Namespace) -> int:
    """Do what was asked and print it."""
    import shlex

    from sarx.study import studies
    from sarx.study.storage import storage_place

    root = storage_place(options.storage)
    acting = options.retry_failed or options.forget is not None
    if options.study is None and not acting:
        lines = studies.describe_studies(root)
        print("\n".join(lines or [f"no study in {root} yet"]))
        return 0
    folder = studies.find_study(root, options.study)
    if options.study is None:
        print(f"the study that changed last: {folder.name}")
    if options.retry_failed:
        lines = studies.retry_failed(folder)
    elif options.forget is not None:
        lines = studies.forget(folder, options.forget, options.reason)
    else:
        storage = f"--storage {shlex.quote(options.storage)}" if options.storage else ""
        lines = studies.describe_study(folder, storage)
    print("\n".join(lines), flush=True)
    return 0


if __name__ == "__main__":
    gc.disable()  # many events are read, none is garbage before the end
    sys.exit(main())
