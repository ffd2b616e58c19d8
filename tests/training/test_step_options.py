"""Each option of the step on one process: precision, clipping, layout, compilation, saving in a thread."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import nn

from sarx.config.errors import UserError
from sarx.data import describe, load_split
from sarx.training import checkpoint, step
from sarx.training.loop import train
from sarx.training.smoke import two_steps
from sarx.training.trainer import build_trainer, take_step

SHORT = {"training__steps": 2, "training__eval_every": 1}


def trainer(config):
    split = load_split(config.data, config.seed, "train")
    return build_trainer(config, describe(config.data, config.seed), split, torch.device("cpu"))


def losses(config):
    return [result.metrics["train/loss"] for result in train(config)]


@pytest.mark.parametrize(("precision", "off"), [("bfloat16", 0.05), ("float16", 0.01), ("float64", 1e-5)])
def test_precision(tiny, precision, off):
    config = tiny(**SHORT, training__precision=precision)
    dtypes = set()
    trained = trainer(config)
    trained.module.model.classifier.register_forward_hook(lambda m, i, o: dtypes.add(o.dtype))
    take_step(trained, 0)
    assert dtypes == {getattr(torch, precision)}
    wide = torch.float64 if precision == "float64" else torch.float32
    assert {value.dtype for value in trained.module.parameters()} == {wide}
    floating = [value for value in trained.module.buffers() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {wide}
    assert losses(config) == pytest.approx(losses(tiny(**SHORT)), rel=off)


def test_float64_runs_through_the_report(tiny):
    from sarx.training.report import train_and_report

    config = tiny(training__steps=1, training__eval_every=1, training__precision="float64", role="confirm")
    (result,) = train_and_report(config)
    assert math.isfinite(result.metrics["geometry/features/nc1"])


def test_a_step_that_the_scaler_leaves_out_is_not_divergence(tiny, tmp_path):
    config = tiny(training__steps=4, training__eval_every=2, training__precision="float16")
    trained = trainer(config)
    trained.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = trained.module.model.classifier.weight.detach().clone()
    metrics = take_step(trained, 0)
    assert torch.equal(trained.module.model.classifier.weight, before)
    assert trained.scaler.get_scale() == 2.0**39
    assert metrics["diverged"] == 0


def test_float16_diverges_when_no_loss_of_an_epoch_is_finite(tiny, monkeypatch):
    original, poisoned = step.TrainingModule.forward, {0}
    seen = iter(range(100))

    def forward(self, images, labels):
        loss, metrics = original(self, images, labels)
        if next(seen) in poisoned:
            return loss * math.nan, {**metrics, "train/loss": metrics["train/loss"] * math.nan}
        return loss, metrics

    monkeypatch.setattr(step.TrainingModule, "forward", forward)
    config = tiny(training__precision="float16")
    results = train(config)
    first = next(results)
    assert not first.diverged
    assert math.isfinite(first.metrics["train/loss"])
    poisoned |= set(range(100))
    assert next(results).diverged
    assert next(results, None) is None


def test_the_scaler_is_resumed(tiny, tmp_path):
    config = tiny(training__precision="float16")
    whole = [dict(result.metrics) for result in train(config, folder=tmp_path)]
    state = checkpoint.newest([tmp_path])
    assert state["scaler"]["scale"] == 65536.0
    assert state["scaler"]["_growth_tracker"] == 6
    checkpoint.save(tmp_path / "b", 2, {**state, "epoch": 2, "scaler": {**state["scaler"], "scale": 2.0}})
    list(train(config, resume=[tmp_path / "b"], folder=tmp_path / "c"))
    again = checkpoint.newest([tmp_path / "c"])
    assert (again["scaler"]["scale"], again["scaler"]["_growth_tracker"]) == (2.0, 8)
    assert len(whole) == 3


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_grad_clip_bounds_the_norm_of_the_gradient(tiny, precision):
    norms = []
    for clip in (0.0, 0.01):
        trained = trainer(tiny(training__grad_clip=clip, training__precision=precision, optim="sgd"))
        before = [value.detach().clone() for value in trained.module.parameters()]
        trained.config.optim.weight_decay = 0.0
        for group in trained.optimizer.param_groups:
            group["weight_decay"] = group["momentum"] = 0.0
        take_step(trained, 0)
        rate = trained.optimizer.param_groups[0]["lr"]
        moved = [(new - old) / rate for new, old in zip(trained.module.parameters(), before, strict=True)]
        norms.append(float(torch.linalg.vector_norm(torch.cat([item.detach().flatten() for item in moved]))))
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("wanted", [True, False])
def test_channels_last(tiny, wanted):
    trained = trainer(tiny(training__channels_last=wanted))
    weights = [
        value for value in trained.module.model.parameters() if value.dim() == 4 and value.shape[2] > 1
    ]
    format_ = torch.channels_last if wanted else torch.contiguous_format
    assert all(value.is_contiguous(memory_format=format_) for value in weights if value.shape[1] > 1)
    assert math.isfinite(float(take_step(trained, 0)["train/loss"]))


def test_a_compiled_model_gives_the_same_numbers_and_keys(tiny, monkeypatch):
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    monkeypatch.setattr(step, "COMPILER", backend)
    results = list(train(tiny(**SHORT, training__compile=True)))
    assert calls
    keys = list(results[-1].module.state_dict())
    eager = list(train(tiny(**SHORT)))
    assert keys == list(eager[-1].module.state_dict())
    assert results[0].metrics["train/loss"] == pytest.approx(eager[0].metrics["train/loss"], rel=1e-5)
    assert results[1].metrics["train/loss"] == pytest.approx(eager[1].metrics["train/loss"], rel=1e-3)


def test_compiled_code_of_earlier_trainings_is_forgotten(tiny, monkeypatch):
    resets = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: None)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    list(train(tiny(training__steps=1, training__eval_every=1, training__compile=True)))
    assert len(resets) == 2
    list(train(tiny(training__steps=1, training__eval_every=1)))
    assert len(resets) == 2


def test_synchronised_batch_norm_is_refused_on_the_cpu_and_keeps_weights_and_activations(tiny):
    with pytest.raises(UserError, match=r"training\.sync_bn: synchronised .* CUDA alone"):
        tiny(training__sync_bn=True)
    plain = trainer(tiny()).module
    config = tiny()
    config.training.sync_bn = True
    converted = trainer(config).module
    kinds = [type(layer).__name__ for layer in converted.model.modules()]
    assert "SyncBatchNormAct" in kinds
    assert not any(type(layer) is nn.BatchNorm2d for layer in converted.model.modules())
    old, new = plain.state_dict(), converted.state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[key], new[key]) for key in old)
    images = trainer(tiny()).samples.batch(0)[0]
    with torch.inference_mode():
        assert torch.allclose(plain.model.eval()(images).logits, converted.model.eval()(images).logits)


def test_a_checkpoint_is_written_in_a_thread_and_is_there_at_the_end(tiny, tmp_path, monkeypatch):
    threads, original = [], checkpoint.write

    def slow(*given):
        threads.append(threading.current_thread())
        return original(*given)

    monkeypatch.setattr(checkpoint, "write", slow)
    plain = [dict(r.metrics) for r in train(tiny(), folder=tmp_path / "a")]
    assert {thread.name for thread in threads} == {"MainThread"}
    threads.clear()
    results = train(tiny(training__async_checkpoint=True), folder=tmp_path / "b")
    for result in results:
        wanted = plain[result.epoch - 1]
        assert all(result.metrics[key] == wanted[key] for key in wanted if not key.startswith("time/"))
        if result.last:
            assert checkpoint.newest([tmp_path / "b"])["epoch"] == 3
    assert "MainThread" not in {thread.name for thread in threads}
    first, second = checkpoint.newest([tmp_path / "a"]), checkpoint.newest([tmp_path / "b"])
    assert all(torch.equal(first["module"][key], second["module"][key]) for key in first["module"])


def test_a_closed_run_waits_for_its_checkpoint_and_a_failed_thread_is_told(tiny, tmp_path, monkeypatch):
    results = train(tiny(training__async_checkpoint=True), folder=tmp_path / "a")
    next(results)
    results.close()
    assert checkpoint.newest([tmp_path / "a"])["epoch"] == 1
    (tmp_path / "file").write_text("")
    results = train(tiny(training__async_checkpoint=True), folder=tmp_path / "file")
    assert next(results).epoch == 1
    with pytest.raises(UserError, match="no checkpoint can be written here"):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]


def test_the_smoke_test_and_the_timing_use_the_options(tiny):
    from sarx.training.timing import timing

    config = tiny(**SHORT, training__accumulation=2, training__precision="bfloat16", training__grad_clip=1.0)
    two_steps(config)
    assert all(value > 0 for value in timing(config))
