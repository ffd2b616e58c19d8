"""Two ranks compute what one computes on the same global batch, and so do two micro-batches."""

from __future__ import annotations

from typing import Any

import pytest
import rank_runs
import torch
from rank_jobs import CASES, DOUBLE, stand_alone
from rank_runs import Record, config, numbers, prepared, run

from sarx.config.errors import UserError
from sarx.data import describe
from sarx.training.loop import train
from sarx.training.samples import Samples, cut

pytestmark = pytest.mark.timeout(600)  # two ranks share what cores there are


def assert_close(ours: list[Record], wanted: list[Record], relative: float) -> None:
    """Metrics to ``relative`` each, weights to that part of the largest of their tensor."""
    assert [item["epoch"] for item in ours] == [item["epoch"] for item in wanted]
    for one, two in zip(numbers(ours), numbers(wanted), strict=True):
        assert one == pytest.approx(two, rel=relative, abs=relative, nan_ok=True)
    for one, two in zip(ours, wanted, strict=True):
        assert one["state"].keys() == two["state"].keys()
        for key, value in two["state"].items():
            off = (one["state"][key].double() - value.double()).abs().max()
            assert off <= relative * max(1.0, float(value.double().abs().max())), key


def assert_alike(ranks: list[Record], case: str) -> list[Record]:
    """Both ranks give the same results to the last bit; return them."""
    first, second = (rank[case] for rank in ranks)
    assert isinstance(first, list), first
    for one, two in zip(first, second, strict=True):
        assert repr({**one, "state": 0}) == repr({**two, "state": 0})
        for key, value in one["state"].items():
            assert torch.equal(value, two["state"][key]), key
    return first


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_equal_one(ranks: list[Record], case: str) -> None:
    ours = assert_alike(ranks, case)
    wanted = run({**CASES[case], "training__accumulation": 1})
    assert_close(ours, wanted, 1e-5 if case.startswith("float32") else 1e-12)


def test_the_gate_opens_within_the_run_and_the_pull_acts(ranks: list[Record]) -> None:
    metrics = ranks[0]["float64"][0]["metrics"]
    assert 0 < metrics["train/first_open_step"] < 10
    assert 0 < metrics["train/gate_open_share"] < 1
    assert metrics["train/pull_loss"] > 0.01


def test_ranks_hold_very_different_numbers_of_valid_pixels() -> None:
    plain = config()
    split = rank_runs.uneven(plain.data, 0, "train")
    samples = Samples(split, describe(plain.data, 0), plain, torch.device("cpu"))
    chosen = [cut(samples.chosen(step), 1, rank, 2)[0] for step in range(20) for rank in (0, 1)]
    valid = [int((samples.labels_of(part) != 255).sum()) for part in chosen]
    ratios = [max(pair) / min(pair) for pair in zip(valid[::2], valid[1::2], strict=True)]
    assert max(ratios) > 1.5


@pytest.mark.parametrize("loss", ["cross_entropy", "logit_adjusted", "class_balanced", "ohem"])
def test_accumulation_changes_nothing_on_one_rank(loss: str) -> None:
    keep_all = {"loss__threshold": 1.0} if loss == "ohem" else {}
    common = {**DOUBLE, **keep_all, "loss": loss, "training__batch_size": 7}
    assert_close(run({**common, "training__accumulation": 3}), run(common), 1e-12)


def test_ranks_agree_with_batch_norm_and_dropout(ranks: list[Record]) -> None:
    """Each rank has its own statistics and masks; model, scores and metrics are the same all the same."""
    results = assert_alike(ranks, "batch norm")
    assert len(results) == 2
    assert any(key.endswith("running_mean") for key in results[0]["state"])


@pytest.mark.parametrize("name", ["cross_entropy", "logit_adjusted", "class_balanced", "ohem"])
def test_a_loss_on_its_own_is_a_part_of_the_global_mean(ranks: list[Record], name: str) -> None:
    """For a wrapper that averages over ranks: mean of values, and of gradients."""
    whole = stand_alone(name, slice(0, 4))
    first, second = (found["losses"][name] for found in ranks)
    torch.testing.assert_close((first["value"] + second["value"]) / 2, whole["value"], rtol=1e-13, atol=0.0)
    gradient = torch.cat([first["gradient"], second["gradient"]]) / 2
    torch.testing.assert_close(gradient, whole["gradient"], rtol=1e-12, atol=1e-16)
    torch.testing.assert_close(first["alone"], stand_alone(name, slice(0, 2))["value"], rtol=1e-13, atol=0.0)


def test_a_rank_without_a_sample_is_refused(ranks: list[Record]) -> None:
    for rank in ranks:
        assert rank["too few samples"]["error"].startswith(
            "UserError: training.batch_size: 3 samples are too"
        )
    with pytest.raises(UserError, match=r"training\.batch_size: 3 samples are too few for 4 micro-batches"):
        config(training__batch_size=3, training__accumulation=4)


def test_a_model_that_fails_on_one_rank_fails_on_all(ranks: list[Record]) -> None:
    assert ranks[0]["one sample"]["error"] == "RuntimeError: another rank failed; its own error says why"
    assert "Expected more than 1 value per channel" in ranks[1]["one sample"]["error"]


@pytest.mark.parametrize(("size", "pieces", "ranks"), [(6, 1, 2), (7, 2, 2), (13, 3, 4), (4, 2, 2)])
def test_every_sample_goes_to_one_rank_and_micro_batch(size: int, pieces: int, ranks: int) -> None:
    parts = [cut(torch.arange(size), pieces, rank, ranks) for rank in range(ranks)]
    in_order = torch.cat([parts[rank][piece] for piece in range(pieces) for rank in range(ranks)])
    assert in_order.tolist() == list(range(size))
    for piece in range(pieces):
        sizes = [len(parts[rank][piece]) for rank in range(ranks)]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


def test_masks_differ_between_ranks_and_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from sarx.training import trainer as module

    drawn: list[Any] = []
    original = module.stream
    monkeypatch.setattr(module, "stream", lambda *given: (drawn.append(given), original(*given))[1])
    with prepared():
        next(train(config(training__eval_every=1, training__steps=1)))
        next(train(config(training__eval_every=1, training__steps=1, training__accumulation=2)))
        monkeypatch.setattr(module, "rank", lambda: 1)
        next(train(config(training__eval_every=1, training__steps=1, training__accumulation=2)))
    masks = [given[1:] for given in drawn]
    assert masks[0] == ("dropout", 0)
    assert masks[1:] == [("dropout", 0, number, rank) for rank in (0, 1) for number in (0, 1)]
