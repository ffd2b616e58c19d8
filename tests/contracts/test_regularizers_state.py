"""What holds for the state and the metrics of every regularizer, at every option set of regularizer_cases."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from regularizer_cases import (
    CASES,
    IGNORED,
    WIDTH,
    Parts,
    assert_same,
    batch,
    descend,
    fresh,
    gradients,
    snapshot,
    train_step,
    trained,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sarx.models.output import ModelOutput
from sarx.training.step import TrainingModule

INPUTS = 6
STAGES = pytest.mark.parametrize("start", [fresh, trained])
pytestmark = pytest.mark.parametrize("case", CASES)

Start = Callable[[str], Parts]


class Network(nn.Module):
    """A producer of features without batch normalisation, and the classifier; called like any model."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.producer = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.ReLU())
        self.classifier = classifier

    def forward(self, inputs: Tensor) -> ModelOutput:
        features = self.producer(inputs)
        return ModelOutput(self.classifier(features), features)


class TaskLoss(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)


def training_module(parts: Parts) -> TrainingModule:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return TrainingModule(Network(parts.classifier), parts.regularizer, TaskLoss())


def inputs(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return batch(seed, shape=(24, INPUTS), dtype=dtype)


@STAGES
def test_state_dict_continues_bit_for_bit_in_a_fresh_module(case: str, start: Start) -> None:
    parts = start(case)
    for seed in range(3):
        train_step(parts, *batch(seed))
    stored = io.BytesIO()
    torch.save(parts.state_dict(), stored)
    stored.seek(0)
    resumed = fresh(case, seed=99, common_seed=99)
    kinds = {key: (value.dtype, value.shape) for key, value in resumed.state_dict().items()}
    resumed.load_state_dict(torch.load(stored, weights_only=True), strict=True)
    for seed in range(3, 7):
        assert torch.equal(train_step(parts, *batch(seed)), train_step(resumed, *batch(seed)))
        assert_same(snapshot(resumed), snapshot(parts))
    for module in (parts, resumed):
        assert {k: (v.dtype, v.shape) for k, v in module.state_dict().items()} == kinds
        assert list(module.state_dict()) == list(kinds)


@STAGES
def test_a_state_dict_is_not_moved_by_later_steps_of_another_module(case: str, start: Start) -> None:
    """Loading copies: two modules loaded from one state share nothing."""
    state = start(case).state_dict()
    before = {key: value.clone() for key, value in state.items()}
    for seed in (4, 5):
        parts = fresh(case, seed=seed, common_seed=seed)
        parts.load_state_dict(state)
        train_step(parts, *batch(seed))
    assert_same(dict(state), before)


@STAGES
def test_metrics_are_the_same_detached_scalars_on_every_step(case: str, start: Start) -> None:
    parts = start(case)
    features, labels = batch()
    outputs = [parts(*batch(seed)) for seed in range(3)]
    outputs.append(parts(features, labels, advance=False))
    outputs.append(parts(features, torch.full_like(labels, IGNORED)))
    outputs.append(parts(features[:0], labels[:0]))
    outputs.append(parts.eval()(features, labels))
    for output in outputs:
        assert list(output.metrics) == list(outputs[0].metrics)
        for name, value in output.metrics.items():
            assert isinstance(value, Tensor), name
            assert value.shape == (), name
            assert not value.requires_grad, name
            assert value.is_floating_point(), name
            assert value.isfinite(), name
            assert name.startswith("train/"), name


@STAGES
def test_earlier_metrics_are_not_moved_by_later_steps(case: str, start: Start) -> None:
    parts = start(case)
    metrics = parts(*batch(0)).metrics
    before = {name: value.clone() for name, value in metrics.items()}
    for seed in (1, 2):
        train_step(parts, *batch(seed))
    assert_same(dict(metrics), before)


@STAGES
def test_eval_computes_and_changes_nothing(case: str, start: Start) -> None:
    parts = start(case).eval()
    before = snapshot(parts)
    features, labels = batch()
    for advance in (True, False):
        output = parts(features, labels, advance=advance)
        assert output.loss.shape == ()
        assert output.loss == 0
    assert parts(features, torch.full_like(labels, 99)).loss == 0
    assert_same(snapshot(parts), before)
    with torch.inference_mode():
        assert parts(features, labels).loss == 0
    parts.train()
    assert torch.equal(train_step(parts, features, labels), train_step(start(case), features, labels))


@STAGES
def test_without_advance_nothing_moves(case: str, start: Start) -> None:
    parts = start(case)
    before = snapshot(parts)
    for seed in range(3):
        loss = parts(*batch(seed), advance=False).loss
        assert loss.isfinite()
    assert_same(snapshot(parts), before)


@STAGES
def test_micro_batches_move_the_state_once(case: str, start: Start) -> None:
    """Two optimizer steps of three micro-batches: the state moves with the first of each alone."""
    split, whole = start(case).double(), start(case).double()
    for seed in (0, 3):
        loss = sum(split(*batch(seed + i, dtype=torch.float64), advance=i == 0).loss for i in range(3))
        whole(*batch(seed, dtype=torch.float64))
        assert_same(snapshot(split), snapshot(whole))
        found = gradients(loss, split)
        for parts in (split, whole):  # the same step for both, so that their states can be compared
            with torch.no_grad():
                for name, parameter in parts.named_parameters():
                    if found.get(name) is not None:
                        parameter.sub_(0.05 * found[name])


@STAGES
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_moves_the_state_once(case: str, start: Start, reentrant: bool) -> None:
    plain = training_module(start(case)).double()
    repeated = copy.deepcopy(plain)
    for seed in range(3):
        features, labels = inputs(seed, torch.float64)
        wanted, _ = plain(features, labels)
        total = checkpoint(lambda *given: repeated(*given)[0], features, labels, use_reentrant=reentrant)
        assert torch.equal(total, wanted)
        found = backward(total, repeated, features)
        assert_same(found, backward(wanted, plain, features))
        assert_same(snapshot(repeated), snapshot(plain))


def backward(total: Tensor, module: nn.Module, features: Tensor) -> dict[str, Tensor | None]:
    """Run backward(), which reentrant checkpointing needs, take a step, and return the gradients."""
    named = {"features": features} | dict(module.named_parameters())
    for tensor in named.values():
        tensor.grad = None
    total.backward()
    found = {name: tensor.grad for name, tensor in named.items()}
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if found[name] is not None:
                tensor.sub_(0.05 * found[name])
    return found


@STAGES
def test_the_global_generator_is_left_alone(case: str, start: Start) -> None:
    parts = start(case)
    before = torch.random.get_rng_state()
    for seed in range(2):
        train_step(parts, *batch(seed))
    assert torch.equal(torch.random.get_rng_state(), before)


@STAGES
def test_a_step_repeats_bit_for_bit_whatever_the_global_generator_holds(case: str, start: Start) -> None:
    parts, twin = start(case), start(case)
    for seed in range(3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            first = train_step(parts, *batch(seed))
            assert torch.equal(train_step(twin, *batch(seed)), first)


@STAGES
def test_synchronised_batch_normalisation_changes_nothing_on_one_process(case: str, start: Start) -> None:
    plain, converted = start(case), nn.SyncBatchNorm.convert_sync_batchnorm(start(case))
    assert list(converted.state_dict()) == list(plain.state_dict())
    for seed in range(3):
        assert torch.equal(train_step(converted, *batch(seed)), train_step(plain, *batch(seed)))
    assert_same(snapshot(converted), snapshot(plain))


@STAGES
def test_copies_go_their_own_way(case: str, start: Start) -> None:
    """deepcopy and pickle, taken after a forward whose graph is still alive."""
    parts = start(case)
    alive = parts(*batch()).loss
    copies = [copy.deepcopy(parts), pickle.loads(pickle.dumps(parts))]
    before = snapshot(parts)
    losses = [train_step(module, *batch(1)) for module in copies]
    assert_same(snapshot(parts), before)
    losses.append(train_step(parts, *batch(1)))
    assert torch.equal(losses[0], losses[2])
    assert torch.equal(losses[1], losses[2])
    assert alive.isfinite()


@STAGES
def test_inference_needs_nothing_of_the_regularizer(case: str, start: Start) -> None:
    """The model's tensors are its own, and it runs, and exports, once the regularizer is gone."""
    parts = start(case)
    keys = {f"classifier.{key}" for key in parts.classifier.state_dict()}
    module = training_module(parts)
    for seed in range(2):
        descend(module(*inputs(seed))[0], module)
    own = {tensor.untyped_storage().data_ptr() for tensor in module.regularizer.state_dict().values()}
    state = module.model.state_dict()
    assert state.keys() == keys | {"producer.0.weight", "producer.0.bias"}
    assert not any(tensor.untyped_storage().data_ptr() in own for tensor in state.values())
    example = inputs(0)[0].detach()
    model = module.model.eval()
    wanted = model(example).logits
    del module.regularizer, parts.regularizer
    assert torch.equal(model(example).logits, wanted)
    exported = torch.export.export(model, (example,))
    assert exported.state_dict.keys() == state.keys()
    assert torch.equal(exported.module()(example).logits, wanted)
