"""ProtoSeg by hand, against a literal twin with loops over classes, and on two ranks."""

from __future__ import annotations

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from sarx.config.schema.regularizers.protoseg import ProtoSegConfig
from sarx.losses import cross_entropy
from sarx.models.prototypes import PrototypeClassifier
from sarx.regularizers import build_regularizer, protoseg
from sarx.regularizers.protoseg import METRIC_KEYS, ProtoSeg, assign, move

CLASSES, WIDTH, PER_CLASS = 3, 5, 4


def classifier_of(*prototypes: list[list[float]]) -> PrototypeClassifier:
    """A classifier with the given prototypes: one list of K vectors per class."""
    table = torch.tensor(prototypes)
    classifier = PrototypeClassifier(table.shape[2], table.shape[0], table.shape[1])
    classifier.prototypes = table
    return classifier


def batch(seed: int = 0, pixels: int = 60) -> tuple[Tensor, Tensor, PrototypeClassifier]:
    """Float64 features (N, D) of length 1, near a prototype of their class; labels with ignored pixels."""
    torch.manual_seed(seed)
    classifier = PrototypeClassifier(WIDTH, CLASSES, PER_CLASS).double()
    labels = torch.randint(0, CLASSES, (pixels,))
    centres = classifier.prototypes[labels, torch.randint(0, PER_CLASS, (pixels,))]
    features = F.normalize(centres + 0.5 * torch.randn(pixels, WIDTH, dtype=torch.float64), dim=1)
    labels[::7] = 255
    return features, labels, classifier


def literal(
    features: Tensor, labels: Tensor, classifier: PrototypeClassifier, temperature: float, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Contrast, distance and new prototypes, class by class, with boolean indexing (K x B matrices)."""
    prototypes = classifier.prototypes
    moved = prototypes.clone()
    predicted = classifier(features).argmax(dim=1)
    contrasts, distances = [], []
    for c in range(len(prototypes)):
        mine = features[labels == c]
        if not len(mine):
            continue
        matrix = torch.exp(mine.detach() @ prototypes[c].T / 0.05).T
        matrix = matrix / matrix.sum()
        for _ in range(3):
            matrix = matrix / matrix.sum(dim=1, keepdim=True) / len(matrix)
            matrix = matrix / matrix.sum(dim=0, keepdim=True) / matrix.shape[1]
        chosen = matrix.argmax(dim=0)
        right = predicted[labels == c] == c
        for k in range(prototypes.shape[1]):
            members = mine.detach()[right & (chosen == k)]
            if len(members):
                mean = F.normalize(members.mean(dim=0), dim=0)
                moved[c, k] = F.normalize(decay * prototypes[c, k] + (1.0 - decay) * mean, dim=0)
        logits = mine @ prototypes.flatten(end_dim=1).T
        targets = c * prototypes.shape[1] + chosen
        contrasts.append(F.cross_entropy(logits / temperature, targets, reduction="none"))
        distances.append((1.0 - logits.gather(1, targets[:, None])).square())
    return torch.cat(contrasts).mean(), torch.cat(distances).mean(), moved


def test_every_prototype_takes_an_equal_share() -> None:
    # Both pixels are nearest to prototype 0. The first prefers it by .4, the second only by .1, so the second
    # goes to prototype 1; a class of its own (row 1) leaves its pixel with its nearest prototype.
    cosines = torch.tensor([[0.9, 0.5], [0.8, 0.7], [0.8, 0.7]])
    assert assign(cosines, torch.tensor([0, 0, 1]), 2).tolist() == [0, 1, 0]


def test_one_round_of_assignment_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protoseg, "SINKHORN_STEPS", 1)
    # exp(cos / .05) is, up to a factor: (8, 2), (4, 2), (4, 1); the columns sum to 16 and 5, which leaves
    # (.5, .4), (.25, .4), (.25, .2)
    cosines = 0.05 * torch.tensor([[8.0, 2.0], [4.0, 2.0], [4.0, 1.0]]).log()
    assert assign(cosines, torch.zeros(3, dtype=torch.int64), 1).tolist() == [0, 1, 0]


def test_move_by_hand() -> None:
    prototypes = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])
    features = torch.tensor([[0.6, 0.8], [-0.6, 0.8], [1.0, 0.0], [0.6, -0.8]])
    # Pixels 0 and 1 go to (class 0, prototype 0): their sum (0, 1.6) has direction (0, 1); pixel 2 moves
    # nothing (slot 4); pixel 3 goes to (1, 1).
    moved, used = move(prototypes, features, torch.tensor([0, 0, 4, 3]), 0.75)
    first = torch.tensor([0.75, 0.25]) / math.hypot(0.75, 0.25)
    last = torch.tensor([0.15, -0.95]) / math.hypot(0.15, 0.95)
    torch.testing.assert_close(moved[0, 0], first)
    torch.testing.assert_close(moved[1, 1], last)
    assert torch.equal(moved[0, 1], prototypes[0, 1])
    assert torch.equal(moved[1, 0], prototypes[1, 0])
    assert used.tolist() == [[True, False], [False, True]]


def test_losses_by_hand() -> None:
    classifier = classifier_of([[1.0, 0.0]], [[0.0, 1.0]])
    regularizer = ProtoSeg(2, 2, contrast_weight=2.0, distance_weight=3.0, temperature=0.5, ema_decay=0.5)
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], requires_grad=True)
    output = regularizer(features, torch.tensor([0, 1, 1, 255]), classifier)
    # cosines / .5: (2, 0), (2, 0), (1.2, 1.6)
    contrast = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2)) + math.log1p(math.exp(-0.4))) / 3
    distance = (0 + 1 + 0.2**2) / 3
    assert float(output.metrics["train/prototype_contrast"]) == pytest.approx(contrast)
    assert float(output.metrics["train/prototype_distance"]) == pytest.approx(distance)
    assert float(output.loss.detach()) == pytest.approx(2 * contrast + 3 * distance)
    # Pixel 1 is taken for class 0 and moves nothing; pixel 2 moves class 1 half way.
    direction = torch.tensor([0.3, 0.9]) / math.hypot(0.3, 0.9)
    torch.testing.assert_close(
        classifier.prototypes[:, 0], torch.stack([torch.tensor([1.0, 0.0]), direction])
    )
    assert output.metrics["train/prototypes_used"] == 1
    output.loss.backward()
    assert features.grad[:3].any(dim=1).all()
    assert not features.grad[3].any()
    # d contrast / d f_0 = (softmax - one_hot) P / .5 / 3; the distance of pixel 0 is 0 with slope 0.
    wrong = 1 / (1 + math.exp(2))
    torch.testing.assert_close(features.grad[0], 2 * torch.tensor([-wrong, wrong]) / 0.5 / 3)


@pytest.mark.parametrize(("temperature", "decay"), [(0.1, 0.999), (1.0, 0.0), (0.3, 0.5)])
def test_equals_the_literal_twin_over_three_steps(temperature: float, decay: float) -> None:
    features, labels, classifier = batch()
    twin = copy.deepcopy(classifier)
    regularizer = ProtoSeg(CLASSES, WIDTH, temperature=temperature, ema_decay=decay)
    for step in range(3):
        ours, theirs = (features.roll(step, dims=0).clone().requires_grad_() for _ in range(2))
        turned = labels.roll(step)
        contrast, distance, moved = literal(theirs, turned, twin, temperature, decay)
        output = regularizer(ours, turned, classifier)
        wanted = 0.01 * contrast + 0.001 * distance
        torch.testing.assert_close(output.loss, wanted, rtol=1e-10, atol=0)
        torch.testing.assert_close(classifier.prototypes, moved, rtol=1e-10, atol=1e-12)
        output.loss.backward()
        wanted.backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-14)
        twin.prototypes = moved
    assert all(p.grad is None for p in classifier.parameters())
    torch.testing.assert_close(classifier.prototypes.norm(dim=-1).mean().item(), 1.0)


def test_maps_equal_rows() -> None:
    features, labels, by_row = batch()
    by_map = copy.deepcopy(by_row)
    maps = features.view(2, 5, 6, WIDTH).permute(0, 3, 1, 2)
    large = labels.view(2, 5, 6).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    one = ProtoSeg(CLASSES, WIDTH)(features, labels, by_row)
    two = ProtoSeg(CLASSES, WIDTH)(maps, large, by_map)
    torch.testing.assert_close(one.loss, two.loss)
    torch.testing.assert_close(by_row.prototypes, by_map.prototypes)


def test_eval_and_advance_false_change_nothing() -> None:
    features, labels, classifier = batch()
    regularizer = ProtoSeg(CLASSES, WIDTH)
    before = classifier.prototypes.clone()
    held = regularizer(features, labels, classifier, advance=False)
    assert torch.equal(classifier.prototypes, before)
    rested = regularizer.eval()(features, labels, classifier)
    assert torch.equal(classifier.prototypes, before)
    assert rested.loss == 0
    assert not any(rested.metrics.values())
    moved = regularizer.train()(features, labels, classifier)
    assert not torch.equal(classifier.prototypes, before)
    assert torch.equal(held.loss, moved.loss)
    assert list(held.metrics) == list(rested.metrics) == list(moved.metrics) == list(METRIC_KEYS)
    assert not regularizer.state_dict()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_moves_once_and_repeats_the_forward(reentrant: bool) -> None:
    """The classifier is inside the repeated region, and an accumulated forward comes after the moving one."""
    features, labels, plain = batch()
    repeated = copy.deepcopy(plain)
    regularizer = ProtoSeg(CLASSES, WIDTH, ema_decay=0.0)

    def total(rows: Tensor, classifier: PrototypeClassifier, advance: bool) -> Tensor:
        task = cross_entropy(classifier(rows), labels, 255)
        return task + regularizer(rows, labels, classifier, advance=advance).loss

    for step, advance in enumerate((True, False, True)):
        rows = features.roll(step, dims=0)
        ours, theirs = (rows.clone().requires_grad_() for _ in range(2))
        wanted = total(theirs, plain, advance)
        value = checkpoint(total, ours, repeated, advance, use_reentrant=reentrant)
        assert torch.equal(value, wanted)
        value.backward()
        wanted.backward()
        assert torch.equal(ours.grad, theirs.grad)
        assert torch.equal(repeated.prototypes, plain.prototypes)
        assert torch.equal(repeated.norm.weight.grad, plain.norm.weight.grad)


@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e30])
def test_what_ignored_pixels_hold_does_not_matter(filling: float) -> None:
    features, labels, classifier = batch()
    filled = features.masked_fill((labels == 255)[:, None], filling)
    results = []
    for rows in (features, filled):
        twin = copy.deepcopy(classifier)
        rows = rows.clone().requires_grad_()
        loss = ProtoSeg(CLASSES, WIDTH)(rows, labels, twin).loss
        loss.backward()
        results.append((loss.detach(), rows.grad, twin.prototypes))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    assert not results[1][1][labels == 255].any()


def test_all_ignored_moves_nothing() -> None:
    features, labels, classifier = batch()
    before = classifier.prototypes.clone()
    features.requires_grad_()
    output = ProtoSeg(CLASSES, WIDTH)(features, torch.full_like(labels, 255), classifier)
    output.loss.backward()
    assert output.loss == 0
    assert not features.grad.any()
    assert torch.equal(classifier.prototypes, before)


class NothingIsRead(TorchDispatchMode):
    """Refuses operations that bring a value or a value-dependent shape to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique"), name
        assert name != "index" or all(i is None or i.dtype != torch.bool for i in args[1]), name
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, classifier = batch()
    monkeypatch.setattr(protoseg, "align_labels", lambda features, labels, **sizes: labels)
    with NothingIsRead():
        ProtoSeg(CLASSES, WIDTH)(features.requires_grad_(), labels, classifier).loss.backward()


def test_an_absent_class_is_left_alone() -> None:
    features, labels, classifier = batch()
    before = classifier.prototypes.clone()
    output = ProtoSeg(CLASSES, WIDTH)(features, labels.masked_fill(labels == 1, 255), classifier)
    assert output.loss.isfinite()
    assert torch.equal(classifier.prototypes[1], before[1])
    assert not torch.equal(classifier.prototypes[0], before[0])


class Ranks:
    """Two threads in the place of two processes: a sum waits for both."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=30)
        self.given: dict[int, Tensor] = {}
        self.rank = threading.local()

    def global_sum(self, values: Tensor) -> Tensor:
        self.given[self.rank.number] = values.detach().clone()
        self.barrier.wait()
        total = self.given[0] + self.given[1]
        self.barrier.wait()
        return total

    def run(self, function: Any) -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda number: self._enter(function, number), range(2)))

    def _enter(self, function: Any, number: int) -> Any:
        self.rank.number = number
        return function(number)


def two_steps(features: Tensor, labels: Tensor, classifier: PrototypeClassifier) -> dict[str, Tensor]:
    """What comes of two steps on the same features."""
    rows, classifier = features.clone().requires_grad_(), copy.deepcopy(classifier)
    regularizer = ProtoSeg(CLASSES, WIDTH, ema_decay=0.5)
    outputs = [regularizer(rows, labels, classifier) for _ in range(2)]
    sum(output.loss for output in outputs).backward()
    metrics = {f"{i}{key}": v for i, output in enumerate(outputs) for key, v in output.metrics.items()}
    return {"gradient": rows.grad, "prototypes": classifier.prototypes, **metrics}


@pytest.mark.parametrize("cut", [13, 30, 1, 0])
def test_two_ranks_are_one(monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """Unequal parts, also an empty one; a distributed wrapper divides gradients by the number of ranks."""
    features, labels, classifier = batch()
    whole = two_steps(features, labels, classifier)
    ranks = Ranks()
    monkeypatch.setattr(protoseg, "global_sum", ranks.global_sum)
    monkeypatch.setattr(protoseg, "world_size", lambda: 2)
    parts = [(features[:cut], labels[:cut]), (features[cut:], labels[cut:])]
    first, second = ranks.run(lambda number: two_steps(*parts[number], classifier))
    assert torch.equal(first["prototypes"], second["prototypes"])
    torch.testing.assert_close(first["prototypes"], whole["prototypes"], rtol=1e-12, atol=1e-12)
    gradient = torch.cat([first["gradient"], second["gradient"]]) / 2
    torch.testing.assert_close(gradient, whole["gradient"], rtol=1e-10, atol=1e-14)
    for key in whole.keys() - {"gradient", "prototypes"}:
        torch.testing.assert_close((first[key] + second[key]) / 2, whole[key], rtol=1e-12, atol=0)


def test_options_arrive_and_mistakes_are_named() -> None:
    config = ProtoSegConfig(
        contrast_weight=0.5, distance_weight=0.25, temperature=2.0, ema_decay=None, ema_half_life=0.1
    )
    sizes = {"num_classes": 3, "feature_dim": 4, "total_steps": 100, "ignore_index": 9}
    built = build_regularizer(config, **sizes)
    assert (built.contrast_weight, built.distance_weight, built.temperature) == (0.5, 0.25, 2.0)
    assert built.ema_decay**10 == pytest.approx(0.5)
    assert built.ignore_index == 9
    for name, value in (
        ("contrast_weight", -1.0),
        ("distance_weight", -1.0),
        ("temperature", 0.0),
        ("ema_decay", 1.0),
    ):
        with pytest.raises(ValueError, match=f"{name}: {value} is outside the allowed range"):
            ProtoSeg(3, 4, **{name: value})
        with pytest.raises(ValueError, match=f"regularizer.{name}: {value} is outside the allowed range"):
            ProtoSegConfig(**{name: value})
    with pytest.raises(ValueError, match="exactly one of ema_decay and ema_half_life"):
        ProtoSegConfig(ema_decay=None)
    rows, labels = torch.zeros(1, 4), torch.tensor([0])
    with pytest.raises(ValueError, match="Linear has no prototypes; it needs"):
        ProtoSeg(3, 4)(rows, labels, nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"prototypes of shape \(2, 10, 4\) are not \(3, K, 4\)"):
        ProtoSeg(3, 4)(rows, labels, PrototypeClassifier(4, 2))
    with pytest.raises(ValueError, match=r"label 3 is outside .* 3 classes"):
        ProtoSeg(3, 4)(rows, torch.tensor([3]), PrototypeClassifier(4, 3))


def test_inert_options() -> None:
    nothing: frozenset[str] = frozenset()
    assert ProtoSegConfig().inert(nothing) == set()
    assert ProtoSegConfig(contrast_weight=0).inert(nothing) == {"temperature"}
    assert ProtoSegConfig(contrast_weight=0).inert(frozenset({"regularizer.contrast_weight"})) == set()
    assert ProtoSegConfig(contrast_weight=0, distance_weight=0).warnings() == ()
