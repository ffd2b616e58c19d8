"""What a check of a data set found, how it is printed, and what of it can be written to a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from sarx.config.errors import UserError
from sarx.data.class_list import Counts, groups_text

SHOWN = 20
"""So many problems and classes are written out, then their number."""


@dataclass
class Report:
    """What was found: lines to print, problems, and the training images with each class if all were read."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    image_counts: Counts | None = None


def print_report(report: Report) -> None:
    """Print what was found, problems last."""
    for line in report.lines:
        print(line)
    for problem in report.problems[:SHOWN]:
        print(f"problem: {problem}")
    if len(report.problems) > SHOWN:
        print(f"problem: and {len(report.problems) - SHOWN} more")
    print("as it should be" if not report.problems else f"problems: {len(report.problems)}")


def write_groups(report: Report, path: Path, name: str) -> None:
    """Write the number of training images with each class, as a file of sarx/data/groups.

    Raises:
        UserError: If the label maps were not all read, for another reason than the problems that were found;
            if the file cannot be written.
    """
    if report.image_counts is not None:
        text = groups_text(report.image_counts, f"counted in the training label maps of data={name}")
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}", where="--write-groups") from None
    elif report.problems:
        print(f"{path} is not written: that needs label maps without a problem", file=sys.stderr)
    else:
        raise UserError(
            "not written: that needs all label maps of a segmentation data set", where="--write-groups"
        )
