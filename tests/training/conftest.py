"""A run small enough for a unit test: 32 scenes, 6 steps in 3 epochs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sarx.config.compose import compose
from sarx.config.schema import TrainConfig

sys.path.insert(0, str(Path(__file__).parent))  # rank_runs, here and in the processes that a test starts

TINY = {
    "model": "fcn_test_efficientnet",
    "data.num_train": 32,
    "training.steps": 6,
    "training.eval_every": 2,
    "training.batch_size": 4,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _short_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate on the first 20 scenes: these tests are about the loop, not about scores."""
    import sarx.training.loop
    import sarx.training.report

    for module in (sarx.training.loop, sarx.training.report):
        original = module.load_split

        def short(config: Any, seed: int, split: str, original: Any = original) -> Any:
            whole = original(config, seed, split)
            return whole if split in ("train", "all") else whole.first(20)

        monkeypatch.setattr(module, "load_split", short)


@pytest.fixture
def tiny() -> Callable[..., TrainConfig]:
    def make(**overrides: Any) -> TrainConfig:
        pairs = {key.replace("__", "."): value for key, value in overrides.items()}
        return compose({**TINY, **pairs})

    return make


@pytest.fixture(scope="session")
def rank_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks work; one for all workers of xdist."""
    from rank_runs import common_folder

    return common_folder(tmp_path_factory, "two_ranks")


@pytest.fixture(scope="session")
def ranks(rank_folder: Path) -> list[dict[str, Any]]:
    """What each of two ranks returned for ``rank_jobs.all_jobs``."""
    from rank_jobs import all_jobs, prepare
    from rank_runs import on_ranks

    return on_ranks(rank_folder, all_jobs(rank_folder), prepare)
