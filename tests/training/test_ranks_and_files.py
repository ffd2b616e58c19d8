"""Checkpoints, reports and memory of a training on two ranks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from rank_jobs import DOUBLE, ONE_EPOCH
from rank_runs import Record, numbers, on_ranks, run

from sarx.training import checkpoint

pytestmark = pytest.mark.timeout(600)  # two ranks share what cores there are


@pytest.fixture(scope="module")
def alone() -> list[Record]:
    """The run of ``DOUBLE`` on one rank."""
    return run(DOUBLE)


def assert_same_numbers(ours: list[Record], wanted: list[Record]) -> None:
    assert [item["epoch"] for item in ours] == [item["epoch"] for item in wanted]
    for one, two in zip(numbers(ours), numbers(wanted), strict=True):
        assert one == pytest.approx(two, rel=1e-12, abs=1e-12, nan_ok=True)


def test_a_checkpoint_of_two_ranks_is_continued_on_one(
    ranks: list[Record], alone: list[Record], rank_folder: Path, tmp_path: Path
) -> None:
    assert_same_numbers(ranks[0]["whole"], alone)
    shutil.copytree(rank_folder / "two", tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two").glob("*.pt")) == [
        "epoch-00001.pt",
        "epoch-00002.pt",
    ]
    (tmp_path / "two" / "epoch-00002.pt").unlink()
    state = checkpoint.newest([tmp_path / "two"])
    assert state is not None
    assert not any(key.startswith("module.") for key in state["module"])
    assert_same_numbers(run(DOUBLE, resume=[tmp_path / "two"]), alone[1:])


def test_rank_0_sets_a_damaged_checkpoint_aside_and_all_continue_from_the_one_before(
    ranks: list[Record], alone: list[Record], rank_folder: Path
) -> None:
    """The checkpoints are those of a run on one rank."""
    for found in ranks:
        assert_same_numbers(found["damaged"], alone[1:])
    assert [path.name for path in (rank_folder / "damaged").glob("*.bad")] == ["epoch-00002.bad"]


def test_results_come_again_equally_often_on_every_rank(ranks: list[Record], alone: list[Record]) -> None:
    for found in ranks:
        assert_same_numbers(found["again"], alone)


def test_a_rank_without_the_file_fails_and_so_do_all(ranks: list[Record]) -> None:
    assert ranks[0]["apart"]["error"] == "RuntimeError: another rank failed; its own error says why"
    assert "rank 1 cannot continue from the checkpoint that rank 0 has chosen" in ranks[1]["apart"]["error"]


@pytest.mark.parametrize("case", ["unwritable", "unwritable, thread"])
def test_a_checkpoint_that_cannot_be_written_is_one_error_on_all_ranks(
    ranks: list[Record], case: str
) -> None:
    errors = {found[case]["error"] for found in ranks}
    assert len(errors) == 1
    assert "no checkpoint can be written here" in errors.pop()


def test_rank_0_reports_for_all(ranks: list[Record], rank_folder: Path) -> None:
    last = [found["report"][-1]["metrics"] for found in ranks]
    assert repr(last[0]) == repr(last[1])
    assert {"test/miou", "probe/miou", "geometry/features/nc1"} <= last[0].keys()
    assert (rank_folder / "report" / "geometry.npz").exists()
    assert [path.name for path in (rank_folder / "report").glob("weights-*.pt")] == ["weights-00001.pt"]


def test_a_report_that_fails_on_rank_0_fails_on_all(ranks: list[Record]) -> None:
    assert ranks[0]["broken report"]["error"] == "OSError: no report today"
    assert ranks[1]["broken report"]["error"] == "RuntimeError: rank 0 failed: no report today"


def test_a_parameter_without_a_gradient_is_allowed(ranks: list[Record], alone: list[Record]) -> None:
    """The loss does not know its divisor over micro-batches; so their means are weighted by samples."""
    for found in ranks:
        assert isinstance(found["unused"], list), found["unused"]
        assert not found["unused"][0]["diverged"]


def test_float16_keeps_ranks_equal(ranks: list[Record]) -> None:
    first, second = (found["float16"] for found in ranks)
    assert repr(numbers(first)) == repr(numbers(second))
    assert all(torch.equal(value, second[-1]["state"][key]) for key, value in first[-1]["state"].items())


def test_nothing_is_kept_from_one_training_to_the_next(ranks: list[Record]) -> None:
    for found in ranks:
        assert isinstance(found["memory"], list), found["memory"]
        alive = [item[0] for item in found["memory"]]
        size = [item[1] for item in found["memory"]]
        assert max(alive[1:]) <= alive[0], alive
        assert size[-1] - size[0] < 20_000, size


@pytest.mark.slow
def test_a_compiled_model_trains_on_two_ranks(alone: list[Record], tmp_path: Path) -> None:
    """Not in the fast tests: tracing takes 10 s per rank."""
    job = (run, {"overrides": {**ONE_EPOCH, "training__compile": True}, "compiler": "eager"})
    for found in on_ranks(tmp_path, {"compiled": job}):
        assert isinstance(found["compiled"], list), found["compiled"]
        ours, wanted = found["compiled"][0], alone[0]
        for key in ("train/loss", "train/task_loss"):
            assert ours["metrics"][key] == pytest.approx(wanted["metrics"][key], rel=1e-12)
        assert ours["state"].keys() == wanted["state"].keys()
