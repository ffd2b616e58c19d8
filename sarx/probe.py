"""Look at trained trials: ``python -m sarx.probe STUDY [--arms A B] [--seeds K] [--images N]``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.probe",
        description="Predict a few report images with the finished confirm trials of a study, for its "
        "figures; what the study decides is not touched.",
    )
    parser.add_argument("study", metavar="STUDY", help="name of a study")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="data.root=DIR, training.device=cpu"
    )
    parser.add_argument("--storage", help="folder of the results (default: SARX_STORAGE, else results/)")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these arms (default: all)")
    parser.add_argument("--seeds", type=int, default=2, help="the first so many confirm seeds (default: 2)")
    parser.add_argument("--images", type=int, default=6, help="report images to predict (default: 6)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="import your own parts first"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict and return the exit code: 0, or 2 for a user's mistake."""
    options = parser().parse_intermixed_args(arguments)
    from sarx.config.errors import exit_code

    return exit_code(lambda: run(options), "stopped; what was written is kept, the same command goes on")


def run(options: argparse.Namespace) -> int:
    """Find the study, predict, write and print."""
    import shlex

    from sarx.config import plugins
    from sarx.study.storage import storage_root
    from sarx.study.studies import find_study

    folder = find_study(storage_root(options.storage), options.study)
    plugins.load(options.plugin)
    from sarx.training.probing import Wanted, probe_study

    wanted = Wanted(options.arms, options.seeds, options.images, tuple(options.overrides), options.threads)
    probe_study(folder, wanted)
    storage = f"--storage {shlex.quote(options.storage)} " if options.storage else ""
    print(f"next         python -m analysis {storage}{folder.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
