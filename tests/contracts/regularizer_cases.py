"""What the contract of the regularizers is tested on: every registered one, at its defaults and with options.

A new entry of ``REGULARIZERS`` is covered at its defaults without a line here; named option sets go into
``OPTION_SETS``. State of the classes must have C as the size of its dimension of classes, see
``permute_classes``. All sizes differ, so that a mistaken dimension shows: C = 5, D = 8, A = 8 or 11, N = 24.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.config.schema.model import ModelConfig
from sarx.config.schema.regularizers import REGULARIZERS, RegularizerConfig
from sarx.models.head import build_head
from sarx.regularizers import RegularizerOutput, build_regularizer

CLASSES, WIDTH, IGNORED, STEPS = 5, 8, 255, 100
MAP = (2, WIDTH, 3, 4)
WARM_UP, LONGEST_WARM_UP = 10, 400

OPTION_SETS: dict[str, dict[str, dict[str, Any]]] = {
    "car": {
        "intra_alone": {"inter_centre_weight": 0.0, "inter_pixel_weight": 0.0},
        "inter_centre_alone": {"intra_weight": 0.0, "inter_pixel_weight": 0.0},
        "inter_pixel_alone": {"intra_weight": 0.0, "inter_centre_weight": 0.0},
    },
    "center_loss": {"alpha_1": {"alpha": 1.0}},
    "pixel_prototype_contrast": {"ema_half_life": {"ema_decay": None, "ema_half_life": 0.1}},
    "sar": {
        "anchor_dim_11": {"anchor_dim": 11},
        "anchor_init_orthogonal": {"anchor_init": "orthogonal"},
        "anchor_init_simplex": {"anchor_init": "simplex"},
        "anchor_init_one_hot": {"anchor_init": "one_hot"},
        "projector_depth_0": {"projector_depth": 0},
        "projector_depth_1": {"projector_depth": 1},
        "anchor_classifier_shared_frozen": {"anchor_classifier": "shared_frozen"},
        "anchor_classifier_separate": {"anchor_classifier": "separate"},
        "pull_target_ema_undetached": {"pull_target": "ema_undetached"},
        "pull_target_current": {"pull_target": "current"},
        "pull_target_current_undetached": {"pull_target": "current_undetached"},
        "gate_per_class": {"gate": "per_class"},
        "gate_always": {"gate": "always"},
        "aux_weighting_detached": {"aux_weighting": "detached"},
        "aux_weighting_uniform": {"aux_weighting": "uniform"},
        "distance_cosine": {"distance": "cosine"},
        "distance_smooth_l1": {"distance": "smooth_l1"},
        "pull_reduction_class_balanced": {"pull_reduction": "class_balanced"},
        "feature_norm_l2": {"feature_norm": "l2"},
        "feature_norm_layer": {"feature_norm": "layer"},
        "ema_half_life": {"ema_decay": None, "ema_half_life": 0.1},
        "undetached_per_class_cosine_balanced_l2": {
            "pull_target": "ema_undetached",
            "gate": "per_class",
            "distance": "cosine",
            "pull_reduction": "class_balanced",
            "feature_norm": "l2",
        },
    },
    "prototype_ema": {
        "ema_decay_0": {"ema_decay": 0.0},
        "ema_half_life": {"ema_decay": None, "ema_half_life": 0.1},
        "gate_all": {"gate": "all"},
        "gate_per_class": {"gate": "per_class"},
    },
}
"""Regularizer -> name of the set -> options that differ from the defaults."""

CASES: dict[str, RegularizerConfig] = {
    f"{name}-{label}": REGULARIZERS[name](**options)
    for name in REGULARIZERS
    for label, options in {"defaults": {}, **OPTION_SETS.get(name, {})}.items()
}


class Parts(nn.Module):
    """A regularizer and the classifier that it is called with."""

    def __init__(self, regularizer: nn.Module, classifier: nn.Module, ignored: int) -> None:
        super().__init__()
        self.regularizer = regularizer
        self.classifier = classifier
        self.ignored = ignored

    def forward(self, features: Tensor, labels: Tensor, *, advance: bool = True) -> RegularizerOutput:
        output: RegularizerOutput = self.regularizer(features, labels, self.classifier, advance=advance)
        return output


def classifier_for(config: RegularizerConfig, num_classes: int, feature_dim: int) -> nn.Module:
    """Return the classifier that the options name in ``classifier``, as the models build it, or nn.Linear."""
    model = ModelConfig(classifier=getattr(config, "classifier", "linear"))
    classifier: nn.Module = build_head(model, feature_dim, num_classes, maps=False)[-1]
    return classifier


def build(
    config: RegularizerConfig,
    *,
    num_classes: int = CLASSES,
    feature_dim: int = WIDTH,
    ignore_index: int = IGNORED,
    seed: int = 0,
    common_seed: int = 0,
) -> Parts:
    """Build a regularizer and its classifier.

    ``common_seed`` decides the classifier and the anchors, as on all ranks of a training, and ``seed`` what
    the regularizer takes from the global generator.
    """
    with torch.random.fork_rng():
        torch.manual_seed(common_seed)
        classifier = classifier_for(config, num_classes, feature_dim)
        torch.manual_seed(seed)
        regularizer = build_regularizer(
            config,
            num_classes=num_classes,
            feature_dim=feature_dim,
            total_steps=STEPS,
            ignore_index=ignore_index,
            anchor_seed=common_seed,
        )
    return Parts(regularizer, classifier, ignore_index).train()


def fresh(case: str, **options: Any) -> Parts:
    """Return the parts of a case before any step."""
    return build(CASES[case], **options)


def trained(case: str) -> Parts:
    """Return a copy of the parts of a case in the middle of training, with the gate open if there is one."""
    return copy.deepcopy(_trained(case))


@functools.cache
def _trained(case: str) -> Parts:
    parts = fresh(case)
    optimizer = torch.optim.Adam(parts.parameters(), lr=0.02)
    for step in range(LONGEST_WARM_UP):
        features, labels = batch(seed=step)
        output = parts(features, labels)
        optimizer.zero_grad()
        (task_loss(parts, features, labels) + output.loss).backward()
        optimizer.step()
        shut = not output.metrics.get("train/gate_open", torch.ones(()))
        if step >= WARM_UP - 1 and not shut:
            break
    return parts


def batch(
    seed: int = 0,
    *,
    shape: tuple[int, ...] = MAP,
    classes: int = CLASSES,
    ignored: int = IGNORED,
    dtype: torch.dtype = torch.float32,
    label_shape: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return features with gradient around a centre per class, and int64 labels, every fifth ignored.

    Args:
        seed: Decides everything but the centres.
        shape: (N, D) or (B, D, H, W).
        classes: C.
        ignored: Label of every fifth pixel.
        dtype: Of the features.
        label_shape: Shape of labels of another resolution, without relation to the features.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    pixels = (shape[0], *shape[2:])
    labels = torch.randint(0, classes, pixels, generator=generator)
    centres = 2.0 * torch.randn(classes, shape[1], generator=torch.Generator().manual_seed(7))
    noise = torch.randn(*pixels, shape[1], generator=generator)
    features = (centres[labels] + noise).movedim(-1, 1).relu().contiguous().to(dtype)
    if label_shape is not None:
        labels = torch.randint(0, classes, label_shape, generator=generator)
    labels.view(-1)[::5] = ignored
    return features.requires_grad_(), labels


def rows(features: Tensor) -> Tensor:
    """Return (B, D, H, W) as (B * H * W, D), and (N, D) as it is."""
    return features.movedim(1, -1).flatten(end_dim=-2)


def task_loss(parts: Parts, features: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the valid pixels of labels at the feature size; 0 without one."""
    logits = parts.classifier(rows(features))
    total = F.cross_entropy(logits, labels.flatten(), ignore_index=parts.ignored, reduction="sum")
    return total / (labels != parts.ignored).sum().clamp(min=1)


def train_step(parts: Parts, features: Tensor, labels: Tensor) -> Tensor:
    """Take one step of plain gradient descent; returns the detached total loss."""
    total = task_loss(parts, features, labels) + parts(features, labels).loss
    descend(total, parts)
    return total.detach()


def descend(total: Tensor, module: nn.Module, rate: float = 0.05) -> None:
    """Take one step of plain gradient descent on all parameters that want one."""
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(wanted, found, strict=True):
            if gradient is not None:
                parameter.sub_(rate * gradient)


def gradients(loss: Tensor, module: nn.Module, **tensors: Tensor) -> dict[str, Tensor | None]:
    """Return the gradients on ``tensors`` and on what ``module`` trains; None where unused."""
    named = dict(tensors) | {k: p for k, p in module.named_parameters() if p.requires_grad}
    if not loss.requires_grad:
        return dict.fromkeys(named)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return dict(zip(named, found, strict=True))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer, persistent or not."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def assert_same(ours: dict[str, Tensor | None], wanted: dict[str, Tensor | None], rtol: float = 0.0) -> None:
    """Equal keys, dtypes and bits; with ``rtol`` equal to that part of the largest entry of all tensors."""
    assert ours.keys() == wanted.keys()
    known = [tensor for tensor in wanted.values() if tensor is not None and tensor.is_floating_point()]
    largest = max((float(tensor.detach().abs().max()) for tensor in known if tensor.numel()), default=0.0)
    for name, tensor in wanted.items():
        ours_now = ours[name]
        assert (ours_now is None) == (tensor is None), name
        if tensor is None or ours_now is None:
            continue
        assert ours_now.dtype == tensor.dtype, name
        if torch.equal(ours_now, tensor):
            continue
        assert rtol, f"{name}: {ours_now} is not {tensor}"
        assert tensor.is_floating_point(), name
        off = float((ours_now.detach() - tensor.detach()).abs().max())
        assert off <= rtol * largest, f"{name}: off by {off:g}, largest entry of all {largest:g}"


def permute_classes(module: nn.Module, order: Tensor) -> None:
    """Relabel in place what belongs to classes: class c becomes class ``order[c]``.

    The rule: a dimension of a parameter or buffer belongs to the classes if and only if its size is C. So the
    other sizes of the state must differ from C in a test, and state with C * K rows must be (C, K, ...).
    """
    came_from = order.argsort()
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            moved = tensor
            for dim, size in enumerate(tensor.shape):
                if size == len(order):
                    moved = moved.index_select(dim, came_from)
            tensor.copy_(moved)
