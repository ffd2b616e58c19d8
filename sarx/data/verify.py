"""Check a data set in files: ``python -m sarx.data.verify data=cityscapes data.root=/data/cityscapes``.

Exit code 0 = as it should be, 1 = something is wrong with the files, 2 = a mistake in what was asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sarx.config.errors import UserError, exit_code
from sarx.data.check_report import print_report, write_groups
from sarx.data.checks import check


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.data.verify",
        description="Check the files of a data set, count its labels, and show who is head, body and tail.",
    )
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="data=NAME data.root=FOLDER ...")
    parser.add_argument(
        "--images", type=int, metavar="N", help="read only N images of each split (default: all)"
    )
    parser.add_argument(
        "--write-groups",
        metavar="FILE",
        help="write the number of training images with each class, as in sarx/data/groups",
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="import your own parts first"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and return the exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: run(options), "stopped")


def run(options: argparse.Namespace) -> int:
    """Check the data set, print what was found, and write the groups if asked to."""
    from sarx.config import plugins
    from sarx.data import DATASETS

    plugins.load(options.plugin)
    if options.images is not None and options.images < 1:
        raise UserError(f"{options.images} images are none; 1 or more", where="--images")
    config = read_config(options.overrides)
    report = check(DATASETS[config.name], config, options.images)
    print_report(report)
    if options.write_groups is not None:
        write_groups(report, Path(options.write_groups), config.name)
    return 1 if report.problems else 0


def read_config(overrides: Sequence[str]) -> Any:
    """Return the options of the data set alone; whether a model fits is not asked.

    Raises:
        UserError: For anything but ``data=NAME`` and ``data.OPTION=VALUE``.
    """
    from sarx.config import compose
    from sarx.config.schema import fill, read_parts

    pairs = compose.parse_overrides(overrides)
    for key in pairs:
        if key != "data" and not key.startswith("data."):
            raise UserError("only data=NAME and data.OPTION=VALUE are read here", key=key)
    if "data" not in pairs:
        raise UserError("not set; write data=NAME, for example data=cityscapes", key="data")
    name = pairs.pop("data")
    compose.check_choice("data", name)
    values = fill({"data": compose.compose_groups((("data", name),))["data"]})
    return read_parts({"data": compose.override(values, pairs)["data"]})["data"]


if __name__ == "__main__":
    sys.exit(main())
