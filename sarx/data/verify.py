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
from sarx.data.checks import SHOWN, Report, check
from sarx.data.class_list import groups_text


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


def write_groups(report: Report, path: Path, name: str) -> None:
    """Write the number of training images with each class, as a file of sarx/data/groups.

    Raises:
        UserError: If the label maps were not all read, for another reason than the problems that were found.
    """
    if report.image_counts is not None:
        text = groups_text(report.image_counts, f"counted in the training label maps of data={name}")
        path.write_text(text, encoding="utf-8")
    elif report.problems:
        print(f"{path} is not written: that needs label maps without a problem", file=sys.stderr)
    else:
        raise UserError(
            "not written: that needs all label maps of a segmentation data set", where="--write-groups"
        )


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


def print_report(report: Report) -> None:
    """Print what was found, problems last."""
    for line in report.lines:
        print(line)
    for problem in report.problems[:SHOWN]:
        print(f"problem: {problem}")
    if len(report.problems) > SHOWN:
        print(f"problem: and {len(report.problems) - SHOWN} more")
    print("as it should be" if not report.problems else f"problems: {len(report.problems)}")


if __name__ == "__main__":
    sys.exit(main())
