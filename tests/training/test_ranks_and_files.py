"""Checkpoints, reports and memory of a training on two ranks."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
import torch
from rank_runs import Record, common_folder, config, numbers, on_ranks, prepared, record, run
from torch import nn

from sarx.training import checkpoint, report
from sarx.training.distributed import is_main
from sarx.training.loop import train

DOUBLE = {"training__precision": "float64", "training__steps": 2, "training__eval_every": 1}
ONE_EPOCH = {**DOUBLE, "training__steps": 1}


def flip(path: Path) -> None:
    """Damage a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def without_the_file(folder: Path) -> list[Record]:
    """Continue where rank 1 does not find what rank 0 has chosen, as without shared storage."""
    with pytest.MonkeyPatch.context() as patch:
        if not is_main():
            patch.setattr("sarx.training.saving.Path", lambda name: folder / "nowhere" / str(name)[1:])
        return run(DOUBLE, resume=[folder])


def fail_to_write(folder: Path, overrides: Record) -> None:
    """Train into a folder that is a file."""
    run({**ONE_EPOCH, **overrides}, folder=folder / "file")


def report_run(folder: Path, broken: bool) -> list[Record]:
    """Train with a report, which fails on rank 0 if ``broken``."""
    original = report.report_metrics
    if broken:
        report.report_metrics = lambda *_: (_ for _ in ()).throw(OSError("no report today"))
    try:
        with prepared():
            return [
                record(r) for r in report.train_and_report(config(**ONE_EPOCH, role="confirm"), folder=folder)
            ]
    finally:
        report.report_metrics = original


def grow(count: int) -> list[tuple[int, int]]:
    """Train over and over; return (tensors alive, kB resident) after each, with no collection in between."""
    found = []
    for seed in range(count):
        run({"training__steps": 1, "training__eval_every": 1, "seed": seed})
        alive = sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())
        found.append((alive, resident()))
    return found


def resident() -> int:
    """Return the resident memory of this process in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


class OneOfTwo(nn.Module):
    """A plug-in's loss with a parameter that no step uses."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.spare = nn.Parameter(torch.zeros(3))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.inner(logits, labels)
        return loss


def with_an_unused_parameter() -> list[Record]:
    """Train with a loss that leaves a parameter without a gradient, and is not told of micro-batches."""
    from sarx.training import step

    original = step.build_loss
    step.build_loss = lambda *given, **options: OneOfTwo(original(*given, **options))
    try:
        return run({**ONE_EPOCH, "training__accumulation": 2})
    finally:
        step.build_loss = original


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common_folder(tmp_path_factory, "ranks_and_files")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[Record]:
    if not (folder / "rank0.pt").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "file").write_text("")
        with prepared():
            list(train(config(**DOUBLE), folder=folder / "damaged"))
        shutil.copytree(folder / "damaged", folder / "finished")
        flip(folder / "damaged" / "epoch-00002.pt")
    jobs = {
        "whole": (run, {"overrides": DOUBLE, "folder": folder / "two"}),
        "damaged": (run, {"overrides": DOUBLE, "resume": [folder / "damaged"]}),
        "again": (run, {"overrides": DOUBLE, "resume": [folder / "finished"], "replay_from": 1}),
        "apart": (without_the_file, {"folder": folder / "finished"}),
        "unwritable": (fail_to_write, {"folder": folder, "overrides": {}}),
        "unwritable, thread": (
            fail_to_write,
            {"folder": folder, "overrides": {"training__async_checkpoint": True}},
        ),
        "report": (report_run, {"folder": folder / "report", "broken": False}),
        "broken report": (report_run, {"folder": folder / "broken", "broken": True}),
        "unused": (with_an_unused_parameter, {}),
        "compiled": (run, {"overrides": {**ONE_EPOCH, "training__compile": True}, "compiler": "eager"}),
        "float16": (run, {"overrides": {**ONE_EPOCH, "training__precision": "float16"}}),
        "memory": (grow, {"count": 20}),
    }
    return on_ranks(folder, jobs)


@pytest.fixture(scope="module")
def alone() -> list[Record]:
    """The run of ``DOUBLE`` on one rank."""
    return run(DOUBLE)


def assert_same_numbers(ours: list[Record], wanted: list[Record]) -> None:
    assert [item["epoch"] for item in ours] == [item["epoch"] for item in wanted]
    for one, two in zip(numbers(ours), numbers(wanted), strict=True):
        assert one == pytest.approx(two, rel=1e-12, abs=1e-12, nan_ok=True)


def test_a_checkpoint_of_two_ranks_is_continued_on_one(
    ranks: list[Record], alone: list[Record], folder: Path, tmp_path: Path
) -> None:
    assert_same_numbers(ranks[0]["whole"], alone)
    shutil.copytree(folder / "two", tmp_path / "two")
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
    ranks: list[Record], alone: list[Record], folder: Path
) -> None:
    """The checkpoints are those of a run on one rank."""
    for found in ranks:
        assert_same_numbers(found["damaged"], alone[1:])
    assert [path.name for path in (folder / "damaged").glob("*.bad")] == ["epoch-00002.bad"]


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


def test_rank_0_reports_for_all(ranks: list[Record], folder: Path) -> None:
    last = [found["report"][-1]["metrics"] for found in ranks]
    assert repr(last[0]) == repr(last[1])
    assert {"test/miou", "probe/miou", "geometry/features/nc1"} <= last[0].keys()
    assert (folder / "report" / "geometry.npz").exists()
    assert [path.name for path in (folder / "report").glob("weights-*.pt")] == ["weights-00001.pt"]


def test_a_report_that_fails_on_rank_0_fails_on_all(ranks: list[Record]) -> None:
    assert ranks[0]["broken report"]["error"] == "OSError: no report today"
    assert ranks[1]["broken report"]["error"] == "RuntimeError: rank 0 failed: no report today"


def test_a_parameter_without_a_gradient_is_allowed(ranks: list[Record], alone: list[Record]) -> None:
    """The loss does not know its divisor over micro-batches; so their means are weighted by samples."""
    for found in ranks:
        assert isinstance(found["unused"], list), found["unused"]
        assert not found["unused"][0]["diverged"]


def test_a_compiled_model_trains_on_two_ranks(ranks: list[Record], alone: list[Record]) -> None:
    for found in ranks:
        assert isinstance(found["compiled"], list), found["compiled"]
        assert found["compiled"][0]["metrics"]["train/loss"] == pytest.approx(
            alone[0]["metrics"]["train/loss"], rel=1e-12
        )
        assert found["compiled"][-1]["state"].keys() == alone[-1]["state"].keys()


def test_float16_keeps_ranks_equal(ranks: list[Record]) -> None:
    first, second = (found["float16"] for found in ranks)
    assert repr(numbers(first)) == repr(numbers(second))
    assert all(torch.equal(value, second[-1]["state"][key]) for key, value in first[-1]["state"].items())


def test_nothing_is_kept_from_one_training_to_the_next(ranks: list[Record]) -> None:
    for found in ranks:
        assert isinstance(found["memory"], list), found["memory"]
        alive = [item[0] for item in found["memory"]]
        size = [item[1] for item in found["memory"]]
        assert max(alive[-5:]) <= max(alive[2:10]), alive
        assert size[-1] - size[4] < 30_000, size
