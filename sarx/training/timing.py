"""Time a few steps and an evaluation of each configuration; run as a process of its own by ``--dry-run``.

Reads ``{"threads": n, "configs": {key: config}, "plugins": [module]}`` as JSON from stdin and writes
``{key: [build_s, step_s, evaluation_s]}`` as the last line of stdout. A configuration that cannot be built
gives ``{"error": text}``. ``plugins`` may be absent.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from sarx.config import plugins
from sarx.config.errors import UserError
from sarx.config.schema import TrainConfig, build
from sarx.data import load_split, split_names, training_split
from sarx.training.batches import BATCH
from sarx.training.described import data_of
from sarx.training.evaluation import evaluate
from sarx.training.trainer import build_trainer, take_step

WARM_UP, STEPS = 2, 5


def timing(config: TrainConfig) -> list[float]:
    """Return seconds to build, per training step, and per evaluation of the selection split."""
    device = torch.device(config.training.device)
    data = data_of(config)
    train_split = load_split(config.data, config.seed, training_split(config.data, config.role))
    selection = load_split(config.data, config.seed, split_names(config.data)[0])
    started = time.perf_counter()
    trainer = build_trainer(config, data, train_split, device)
    built = time.perf_counter()
    durations = []
    for step in range(WARM_UP + STEPS):
        before = time.perf_counter()
        float(take_step(trainer, min(step, config.training.steps - 1))["train/loss"])
        durations.append(time.perf_counter() - before)
    before = time.perf_counter()
    trainer.close()
    part = selection.first(BATCH)
    evaluate(trainer.module.model, part, data, device, "val")
    evaluation = (time.perf_counter() - before) * len(selection) / len(part)
    return [built - started, sorted(durations[WARM_UP:])[STEPS // 2], evaluation]


def main() -> None:
    """Time what stdin asks for."""
    request: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    plugins.load(request.get("plugins", ()))
    answer: dict[str, Any] = {}
    configs = request["configs"]
    for key, values in [
        *list(configs.items())[:1],
        *configs.items(),
    ]:  # the first once more: imports are late
        try:
            answer[key] = timing(build(values))
        except UserError as error:
            answer[key] = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
