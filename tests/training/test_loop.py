from __future__ import annotations

import math

import pytest
import torch

from sarx.training import checkpoint
from sarx.training.loop import train
from sarx.training.report import train_and_report


def numbers(metrics):
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


def weights(result):
    return {key: value.clone() for key, value in result.module.state_dict().items()}


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key


def run(config, **options):
    results = [(numbers(r.metrics), weights(r), r.epoch, r.last) for r in train(config, **options)]
    return results


def test_a_run_repeats_bit_for_bit_whatever_the_global_generators_hold(tiny):
    torch.manual_seed(1)
    first = run(tiny())
    torch.manual_seed(2)
    second = run(tiny())
    assert [r[0] for r in first] == [r[0] for r in second]
    assert_equal_weights(first[-1][1], second[-1][1])


def test_seeds_differ(tiny):
    assert run(tiny(seed=1))[-1][0] != run(tiny(seed=2))[-1][0]


def test_every_epoch_has_the_same_keys_and_the_last_says_so(tiny):
    results = run(tiny())
    assert [r[2] for r in results] == [1, 2, 3]
    assert [r[3] for r in results] == [False, False, True]
    assert len({frozenset(r[0]) for r in results}) == 1
    assert {"train/loss", "train/gate_open_share", "val/miou", "val/tail_iou", "val/iou/digit_3"} <= set(
        results[0][0]
    )


@pytest.mark.parametrize("closed_after", [1, 2])
def test_a_closed_run_resumes_bit_for_bit(tiny, tmp_path, closed_after):
    whole = run(tiny(model__dropout=0.5))
    generator = train(tiny(model__dropout=0.5), folder=tmp_path / "attempt-1")
    for _ in range(closed_after):
        next(generator)
    generator.close()
    rest = run(
        tiny(model__dropout=0.5),
        folder=tmp_path / "attempt-2",
        resume=[tmp_path / "attempt-2", tmp_path / "attempt-1"],
    )
    assert [r[2] for r in rest] == list(range(closed_after + 1, 4))
    assert [r[0] for r in rest] == [r[0] for r in whole[closed_after:]]
    assert_equal_weights(rest[-1][1], whole[-1][1])


def test_a_run_killed_between_its_last_checkpoint_and_the_report_is_not_trained_again(tiny, tmp_path):
    whole = run(tiny(), folder=tmp_path)
    again = run(tiny(), resume=[tmp_path])
    assert len(again) == 1
    assert again[0][0] == whole[-1][0]
    assert again[0][3]
    assert_equal_weights(again[0][1], whole[-1][1])


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(tiny, tmp_path, capsys):
    whole = run(tiny())
    generator = train(tiny(), folder=tmp_path)
    next(generator)
    next(generator)
    generator.close()
    newest = sorted(tmp_path.glob("epoch-*.pt"))[-1]
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes(bytes(raw))
    rest = run(tiny(), resume=[tmp_path])
    assert [r[2] for r in rest] == [2, 3]
    assert rest[-1][0] == whole[-1][0]
    assert newest.with_suffix(".bad").exists()
    assert "damaged" in capsys.readouterr().out


def test_two_checkpoints_are_kept(tiny, tmp_path):
    run(tiny(), folder=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["epoch-00002.pt", "epoch-00003.pt"]


def test_checkpoints_never_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("ran",)

    checkpoint.save(tmp_path, 1, {"x": Trap()})
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        checkpoint.newest([tmp_path])


def test_removal_takes_resumable_checkpoints_only(tmp_path):
    checkpoint.save(tmp_path / "attempt-1", 1, {"a": torch.zeros(1)})
    checkpoint.save(tmp_path / "attempt-1", 1, {"a": torch.zeros(1)}, name="weights")
    checkpoint.remove(tmp_path / "attempt-1")
    assert sorted(path.name for path in (tmp_path / "attempt-1").iterdir()) == [
        "weights-00001.pt",
        "weights-00001.sha256",
    ]


def test_a_non_finite_loss_ends_the_run_as_diverged(tiny, monkeypatch):
    import sarx.training.step as step

    original = step.TrainingModule.forward

    def poisoned(self, images, labels):
        loss, metrics = original(self, images, labels)
        return loss * math.nan, metrics

    monkeypatch.setattr(step.TrainingModule, "forward", poisoned)
    results = list(train(tiny()))
    assert len(results) == 1
    assert results[0].diverged
    assert not any(key.startswith("val/") for key in results[0].metrics)


def test_no_aux_under_the_published_gate_is_cross_entropy_bit_for_bit(tiny):
    plain = run(tiny(regularizer="none"))
    inert = run(tiny(regularizer="sar", regularizer__aux_weight=0.0))
    assert inert[-1][0]["train/gate_open_share"] == 0.0
    for key in plain[-1][0]:
        assert plain[-1][0][key] == inert[-1][0][key], key
    assert_equal_weights(
        plain[-1][1], {k: v for k, v in inert[-1][1].items() if not k.startswith("regularizer.")}
    )


def test_search_reads_no_report_image_and_has_no_report_metric(tiny, monkeypatch):
    import sarx.training.loop as loop

    read = []
    original = loop.load_split

    def recorded(config, seed, split):
        read.append(split)
        return original(config, seed, split)

    monkeypatch.setattr(loop, "load_split", recorded)
    results = run(tiny())
    assert set(read) == {"train", "val"}
    assert not any(key.startswith("test/") for result in results for key in result[0])
    with pytest.raises(ValueError, match="only confirm trials"):
        next(train_and_report(tiny()))


def test_the_report_is_scored_once_after_the_last_epoch(tiny, tmp_path):
    results = [numbers(r.metrics) for r in train_and_report(tiny(role="confirm"), folder=tmp_path)]
    assert [any(key.startswith("test/") for key in metrics) for metrics in results] == [False, False, True]
    final = checkpoint_names(tmp_path)
    assert "weights-00003.pt" in final
    state = torch.load(tmp_path / "weights-00003.pt", weights_only=True)
    assert not any("anchor" in key or "projector" in key for key in state)


def checkpoint_names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_witness_file_counts_executions(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SARX_WITNESS", str(tmp_path / "witness"))
    list(train(tiny(), name="abc"))
    lines = (tmp_path / "witness").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["abc", "1"], ["abc", "2"], ["abc", "3"]]


def test_weight_decay_does_not_move_an_untrained_projector(tiny):
    config = tiny(regularizer__aux_weight=0.0, regularizer__gate="always", optim__weight_decay=0.5)
    results = train(config)
    first = weights(next(results))
    *_, last = [weights(result) for result in results]
    assert not torch.equal(first["model.classifier.weight"], last["model.classifier.weight"])
    for key in first:
        if key.startswith("regularizer.projector") and key.endswith(("weight", "bias")):
            assert torch.equal(first[key], last[key]), key
