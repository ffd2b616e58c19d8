"""Two ranks compute what one computes on the same global batch, to float64 round-off."""

from __future__ import annotations

import fcntl
import os
from typing import Any

import pytest
import torch
from regularizer_cases import CASES, assert_same, trained
from regularizer_ranks import RANKS, STAGES, attempt, build_whole, run_steps, work
from torch import multiprocessing

RELATIVE = 1e-12
Ranks = list[dict[str, Any]]
pytestmark = [pytest.mark.parametrize("stage", STAGES), pytest.mark.parametrize("case", CASES)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What the ranks computed for all cases; started once, also where several workers of xdist ask for it."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "regularizer_ranks"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "rank0.pt").exists():
            states = {case: attempt(lambda case=case: trained(case).state_dict()) for case in CASES}
            torch.save({c: s for c, s in states.items() if not isinstance(s, str)}, folder / "trained.pt")
            (folder / "store").unlink(missing_ok=True)  # of an attempt that failed
            multiprocessing.spawn(work, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


def on_ranks(ranks: Ranks, case: str, stage: str, key: str) -> list[Any]:
    """What each rank computed; an error on the ranks fails the test that looks at it."""
    assert f"{case} {stage}" in ranks[0], "the warm-up of this case failed"
    found = [rank[f"{case} {stage}"][key] for rank in ranks]
    for value in found:
        assert not isinstance(value, str), f"on a rank:\n{value}"
    return found


def test_buffers_do_not_depend_on_the_seed_of_the_rank(ranks: Ranks, case: str, stage: str) -> None:
    first, second = on_ranks(ranks, case, stage, "buffers")
    assert_same(first, second)


def test_two_ranks_equal_one(ranks: Ranks, case: str, stage: str) -> None:
    """Losses and metrics as means over ranks, averaged gradients, and the state after each step."""
    with torch.random.fork_rng():
        whole = build_whole(case, trained(case).state_dict() if stage == "trained" else None, seed=0)
    wanted = run_steps(whole, whole, slice(None))
    first, second = on_ranks(ranks, case, stage, "wrapped")
    for step, one, two in zip(wanted, first, second, strict=True):
        means = {name: (value + two["losses"][name]) / 2 for name, value in one["losses"].items()}
        assert_same(means, step["losses"], RELATIVE)
        assert_same(one["gradients"], step["gradients"], RELATIVE)
        assert_same(one["state"], step["state"], RELATIVE)
        assert_same(two["gradients"], one["gradients"])
        assert_same(two["state"], one["state"])


def test_synchronised_batch_normalisation_changes_nothing(ranks: Ranks, case: str, stage: str) -> None:
    for plain, converted in zip(
        on_ranks(ranks, case, stage, "plain"), on_ranks(ranks, case, stage, "converted"), strict=True
    ):
        for wanted, ours in zip(plain, converted, strict=True):
            for key in wanted:
                assert_same(ours[key], wanted[key], RELATIVE)
