"""Train once, without Ray: ``python -m sarx.train model=fcn_test_convnext regularizer=sar``."""

from __future__ import annotations

import argparse
import os
import sys
import time
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
        "--threads", type=int, default=1, help="CPU threads; one repeats bit for bit (default: 1)"
    )
    parser.add_argument("--storage", help="folder of the results (default: SARX_STORAGE, else results/)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return the exit code: 0, 1 if it diverged, 2 for a user's mistake."""
    options = parser().parse_args(arguments)
    from sarx.config.errors import exit_code

    return exit_code(lambda: run(options), "stopped; the same command continues from the last checkpoint")


def run(options: argparse.Namespace) -> int:
    """Compose, train, print each epoch and write TensorBoard."""
    from sarx.config.compose import compose, parse_overrides
    from sarx.config.errors import UserError
    from sarx.config.schema.acting import warnings_of
    from sarx.models.backbone_names import check_backbone
    from sarx.study.storage import SINGLE, open_folder, storage_root

    if not 1 <= options.threads <= (os.cpu_count() or 1):
        raise UserError(f"{options.threads} is outside [1, {os.cpu_count()}]", where="--threads")
    pairs = {"role": "confirm" if options.report else "search", **parse_overrides(options.overrides)}
    config = compose(pairs)
    check_backbone(config.model.backbone)
    folder = open_folder(storage_root(options.storage), SINGLE)
    import torch

    from sarx.data import fingerprint
    from sarx.study.identity import training_code, trial_id
    from sarx.tensorboard import Board
    from sarx.training.loop import train
    from sarx.training.report import train_and_report

    if config.training.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU is visible here; use cpu", key="training.device")
    torch.set_num_threads(options.threads)
    name = trial_id(
        config,
        data_fingerprint=fingerprint(config.data),
        code=training_code().digest,
        threads=options.threads,
    )
    for text in warnings_of(config, list(pairs)):
        print(f"warning: {text}", flush=True)
    print(f"trial {name}; results in {folder.trial(name)}", flush=True)
    board = Board(folder.tensorboard / name)
    attempt = folder.attempt(name, 1)
    started, score = time.time(), "val/miou" if config.data.task == "segmentation" else "val/mean_accuracy"
    host = train_and_report if config.role == "confirm" else train
    for result in host(config, folder=attempt, resume=[attempt], name=name):
        board.scalars(result.step, result.metrics, time.time())
        left = (time.time() - started) / result.epoch * (config.training.epochs - result.epoch)
        shown = {key: result.metrics[key] for key in ("train/loss", score) if key in result.metrics}
        shown |= {
            key: value for key, value in result.metrics.items() if key == score.replace("val/", "test/")
        }
        text = "  ".join(f"{key} {value:.4f}" for key, value in shown.items())
        print(f"epoch {result.epoch}/{config.training.epochs}  {text}  about {left:.0f} s left", flush=True)
    board.close()
    print(f"results      {folder.trial(name)}\ntensorboard  {folder.tensorboard}   (just tensorboard train)")
    if result.diverged:
        print("diverged: the loss became non-finite; lower optim.lr", file=sys.stderr)
    return int(result.diverged)


if __name__ == "__main__":
    sys.exit(main())
