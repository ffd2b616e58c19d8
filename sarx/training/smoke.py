"""Two steps and a small evaluation of every arm and backbone, before hours are spent: ``--smoke``.

``smoke`` asks a process of its own, so that the caller imports no torch and survives what an arm can do to a
process. That process reads ``{"threads": n, "plugins": [module], "configs": {key: config}}`` as JSON from
stdin and prints ``{"key": key, "seconds": s, "error": text or null}`` after each configuration. Where it
dies, the configuration after the last that it printed is the one that killed it, and another process goes on;
so it does after an error on a GPU, which may have harmed the process.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sarx.config import plugins
from sarx.config.compose import override
from sarx.config.errors import UserError
from sarx.config.schema import TrainConfig, as_dict, build
from sarx.study.arm import Arm

STEPS = 2
IMAGES = 8
LENGTH = {"training.steps": STEPS, "training.eval_every": STEPS}
LONGEST = 300
BACKBONE = "model.backbone"
ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)(:|$)")
"""How the last line of a traceback begins."""


def smoke(arms: Sequence[Arm], threads: int) -> int:
    """Try every arm with every backbone that it may search; print each; return 1 if any failed.

    Args:
        arms: Arms of a checked study.
        threads: CPU threads.
    """
    configs = {key: as_dict(config) for key, config in variants(arms)}
    print(f"smoke test: {len(configs)} configurations, {STEPS} steps and {IMAGES} images each", flush=True)
    width = max(map(len, configs))
    failed = 0
    for key, seconds, error in try_all(configs, threads):
        failed += error is not None
        text = f"FAILED  {error}" if error is not None else f"ok      {seconds:.1f} s"
        print(f"  {key:<{width}}  {text}", flush=True)
    print(f"{failed} of {len(configs)} failed" if failed else "all of them train and evaluate")
    return int(failed > 0)


def variants(arms: Sequence[Arm]) -> Iterator[tuple[str, TrainConfig]]:
    """Yield every arm at its defaults, and with each other backbone that it searches, cut to two steps."""
    for arm in arms:
        plain = override(as_dict(arm.config), LENGTH)
        yield arm.key, build(plain)
        for parameter in arm.space:
            if parameter.key == BACKBONE:
                for name in parameter.choices:
                    if name != arm.config.model.backbone:
                        yield f"{arm.key} {BACKBONE}={name}", build(override(plain, {BACKBONE: name}))


def try_all(configs: Mapping[str, Any], threads: int) -> Iterator[tuple[str, float, str | None]]:
    """Yield key, seconds and error of each configuration, in order, as soon as it is known."""
    left = dict(configs)
    while left:
        request = {"threads": threads, "plugins": plugins.loaded(), "configs": left}
        begun, answered, said = time.monotonic(), False, list[str]()
        with subprocess.Popen(
            [sys.executable, "-m", "sarx.training.smoke"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # what it printed says why
                child.stdin.write(json.dumps(request))
                child.stdin.close()
            for line in child.stdout:
                answer = _answer(line)
                if answer is None:
                    said.append(line)
                    continue
                begun, answered, said = time.monotonic(), True, []
                del left[answer["key"]]
                yield answer["key"], answer["seconds"], answer["error"]
        if left and (child.returncode != 0 or not answered):
            key = next(iter(left))
            del left[key]
            yield key, time.monotonic() - begun, _last_words(said, child.returncode)


def _answer(line: str) -> dict[str, Any] | None:
    """Return what a line of the process says about a configuration; None for anything else printed."""
    if not line.startswith('{"key": '):
        return None
    answer: dict[str, Any] = json.loads(line)
    return answer


def _last_words(said: list[str], code: int) -> str:
    """Return why the process ended: how it was killed, the error that it printed, or its last line."""
    if code < 0:
        return f"the process was killed (signal {-code}); out of memory?"
    lines = [line.rstrip() for line in said if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    return (errors or lines or [f"exit code {code}, without a word"])[-1].strip()


def two_steps(config: TrainConfig) -> None:
    """Build, train two steps and score a few images.

    Raises:
        UserError: If it cannot be built, or if its loss is not finite.
    """
    import torch

    from sarx.data import load_split, split_names, training_split
    from sarx.training.described import data_of
    from sarx.training.evaluation import evaluate
    from sarx.training.trainer import build_trainer, take_step

    device = torch.device(config.training.device)
    data = data_of(config)
    train_split = load_split(config.data, config.seed, training_split(config.data, config.role))
    trainer = build_trainer(config, data, train_split, device)
    try:
        for step in range(STEPS):
            loss = float(take_step(trainer, step)["train/loss"])
            if not math.isfinite(loss):
                raise UserError(f"the loss of step {step + 1} is {loss}; lower optim.lr")
    finally:
        trainer.close()
    selection = load_split(config.data, config.seed, split_names(config.data)[0])
    part = selection.first(IMAGES)
    evaluate(trainer.module.model, part, data, device, "val", trainer.module.prediction_adjustment)


def _describe(error: Exception) -> str:
    """Return what an error says and where, outside of installed packages, it was raised."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    text = " ".join(str(error).split())
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    return f"{type(error).__name__}: {shown} ({frames[-1].filename}:{frames[-1].lineno})"


def main() -> None:
    """Try what stdin asks for."""
    request: dict[str, Any] = json.load(sys.stdin)
    plugins.load(request["plugins"])
    import torch

    torch.set_num_threads(request["threads"])
    for key, values in request["configs"].items():
        begun, text = time.monotonic(), None
        try:
            two_steps(build(values))
        except UserError as error:
            text = str(error)
        except plugins.BROKEN as error:
            text = _describe(error)
        answer = {"key": key, "seconds": time.monotonic() - begun, "error": text}
        print(f"\n{json.dumps(answer)}", flush=True)
        if text is not None and values["training"]["device"] != "cpu":
            return


if __name__ == "__main__":
    main()
