"""Score a checkpoint: ``python -m sarx.evaluate CHECKPOINT [evaluation=slide] [--split val] [--labels]``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.evaluate",
        description="Score a checkpoint of a trial; what a study decides is not touched.",
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help=".../trials/TRIAL_ID/attempt-N/weights-EPOCH.pt"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="evaluation=whole|slide|multi_scale|multi_scale_slide, data.root=DIR, training.device=cuda",
    )
    parser.add_argument("--split", choices=("val", "test"), default="test", help="default: test")
    parser.add_argument(
        "--labels",
        action="store_true",
        help="write each prediction as a PNG of what the data set's label maps store (Cityscapes: label ids)",
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="predict these images, which have no labels, as --labels does: such as leftImg8bit/test",
    )
    parser.add_argument("--output", help="folder of the results (default: evaluation/ beside the attempt)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="import your own parts first"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Score and return the exit code: 0, or 2 for a user's mistake."""
    options = parser().parse_intermixed_args(arguments)
    from sarx.config.errors import exit_code

    return exit_code(lambda: run(options), "stopped; nothing was written")


def run(options: argparse.Namespace) -> int:
    """Load, score, write and print."""
    from pathlib import Path

    from sarx.config import plugins
    from sarx.training.scoring import evaluate_checkpoint

    plugins.load(options.plugin)
    evaluate_checkpoint(
        Path(options.checkpoint),
        options.overrides,
        split=options.split,
        output=Path(options.output) if options.output else None,
        labels=options.labels,
        threads=options.threads,
        images=options.images,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
