"""Semantic Anchor Regularization (Ge et al., AAAI 2024, arXiv 2312.11872).

Legend: C classes, D feature channels, A anchor dimension, E the projector, M the semantic anchors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.config.schema.regularizers import SarConfig
from sarx.regularizers.checks import align_labels, check_options, check_sizes
from sarx.regularizers.functional import (
    AnchorStatistics,
    anchor_loss,
    anchor_statistics,
    ema_update,
    gate_is_open,
    mean_pairwise_cosine,
    pull_loss,
    weighted,
    zeroed,
)
from sarx.regularizers.output import RegularizerOutput
from sarx.regularizers.projector import build_projector

METRIC_KEYS = (
    "train/aux_loss",
    "train/pull_loss",
    "train/gate_open",
    "train/anchor_confidence_min",
    "train/anchor_confidence_mean",
    "train/anchor_cosine",
    "train/aux_zero",
    "train/first_open_step",
)


class SemanticAnchorRegularizer(nn.Module):
    """Pulls features towards moving averages of projected fixed anchors, once the classifier separates them.

    A training step: embed the anchors; their cross-entropy through the classifier is the aux loss; the gate
    is open if every class is argmax-correct and more confident than ``update_confidence``; an open gate
    moves M towards E(A), the first time all the way; the pull loss takes the features to the M just
    computed. While the gate is shut M rests and the pull is exactly 0. The aux loss reaches projector and
    classifier only, the pull loss reaches the features only.

    Args:
        num_classes: C, at least 2.
        feature_dim: D.
        anchor_dim: A; None is D.
        projector_depth: Blocks of the projector; 0 is the identity.
        aux_weight: Weight of the anchor cross-entropy; 0 freezes the projector (and an own classifier).
        pull_weight: Weight of the pull loss.
        ema_decay: Weight of the old M, in [0, 1).
        filter_confidence: Anchors more confident than this leave the aux loss; 1 keeps all.
        update_confidence: Confidence that every anchor must exceed to open the gate.
        gate: ``all`` (published) or ``always`` (open from the first step on).
        anchor_classifier: ``shared`` (published) or ``separate``, an own linear layer that judges the gate.
        ignore_index: Label of pixels that are not pulled.
        anchor_seed: Seed of the anchors' own generator; equal seeds give equal anchors on every rank.

    Attributes:
        anchors: (C, A) fixed draws from N(0, 1).
        semantic_anchors: (C, D) M, zeros until the gate first opens. Each step binds a new tensor.
        initialized: Bool scalar, whether M holds anything.
        steps: int64 scalar, training forwards so far.
        first_open_step: int64 scalar, ``steps`` before the forward that first opened the gate; -1 if none.
        projector: nn.Sequential E, (C, A) -> (C, D).
        separate_classifier: nn.Linear (D -> C) or None.

    Raises:
        ValueError: For an option out of range, naming it, its value and what is allowed.
    """

    anchors: Tensor
    semantic_anchors: Tensor
    initialized: Tensor
    steps: Tensor
    first_open_step: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        anchor_dim: int | None = None,
        projector_depth: int = 3,
        aux_weight: float = 1.0,
        pull_weight: float = 0.1,
        ema_decay: float = 0.999,
        filter_confidence: float = 0.9,
        update_confidence: float = 0.8,
        gate: str = "all",
        anchor_classifier: str = "shared",
        ignore_index: int = 255,
        anchor_seed: int = 0,
    ) -> None:
        """Build the anchors from ``anchor_seed`` alone, and the trained layers from the global generator."""
        super().__init__()
        _check(
            num_classes,
            feature_dim,
            anchor_dim="feature_dim" if anchor_dim is None else anchor_dim,
            aux_weight=aux_weight,
            pull_weight=pull_weight,
            ema_decay=ema_decay,
            filter_confidence=filter_confidence,
            update_confidence=update_confidence,
            gate=gate,
            anchor_classifier=anchor_classifier,
        )
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.aux_weight = aux_weight
        self.pull_weight = pull_weight
        self.ema_decay = ema_decay
        self.filter_confidence = filter_confidence
        self.update_confidence = update_confidence
        self.gate = gate
        self.ignore_index = ignore_index
        width = feature_dim if anchor_dim is None else anchor_dim
        self.projector = build_projector(width, feature_dim, projector_depth)
        self.separate_classifier = (
            nn.Linear(feature_dim, num_classes) if anchor_classifier == "separate" else None
        )
        if not aux_weight:  # without a gradient, weight decay alone would move what no loss trains
            self.projector.requires_grad_(False)
            if self.separate_classifier is not None:
                self.separate_classifier.requires_grad_(False)
        self._register_state(width, anchor_seed)

    def _register_state(self, anchor_dim: int, anchor_seed: int) -> None:
        """Register the buffers; the anchors are drawn on the CPU in float32 whatever the defaults are."""
        generator = torch.Generator(device="cpu").manual_seed(anchor_seed)
        drawn = torch.randn(
            self.num_classes, anchor_dim, generator=generator, dtype=torch.float32, device="cpu"
        )
        self.register_buffer("anchors", torch.empty(self.num_classes, anchor_dim).copy_(drawn))
        self.register_buffer("semantic_anchors", torch.zeros(self.num_classes, self.feature_dim))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("first_open_step", torch.full((), -1, dtype=torch.int64))

    def forward(
        self, features: Tensor, labels: Tensor, classifier: nn.Module, *, advance: bool = True
    ) -> RegularizerOutput:
        """Return the weighted loss and, in train(), advance gate and moving average by one step.

        In eval() nothing is computed or changed: the loss and all metrics are 0, except the first open step.

        Args:
            features: (N, D) or (B, D, H, W), what enters the classifier, before dropout.
            labels: (N,) or (B, H', W'), integer; a map is brought to (H, W) by the nearest rule.
            classifier: The task's nn.Linear or 1x1 nn.Conv2d, D -> C.

        Raises:
            ValueError: For shapes, labels or a classifier that do not fit.
        """
        if not self.training:
            return self._resting_output()
        labels = align_labels(
            features,
            labels,
            num_classes=self.num_classes,
            feature_dim=self.feature_dim,
            ignore_index=self.ignore_index,
        )
        with torch.autocast(features.device.type, enabled=False):
            embedded_CD = self.projector(self.anchors)
            statistics = anchor_statistics(self._classify(embedded_CD, classifier))
            aux = anchor_loss(statistics.log_confidence, self.filter_confidence)
            gate_open = self._decide_gate(statistics)
            moved_CD = ema_update(
                self.semantic_anchors, embedded_CD.detach(), self.initialized, self.ema_decay
            )
            moved_CD = torch.where(gate_open, moved_CD, self.semantic_anchors)
            pull = zeroed(pull_loss(features, labels, moved_CD, self.ignore_index), ~gate_open)
            loss = weighted(aux, self.aux_weight) + weighted(pull, self.pull_weight)
        self._commit(moved_CD, gate_open)
        return RegularizerOutput(loss, self._metrics(aux, pull, gate_open, statistics))

    def _classify(self, embedded_CD: Tensor, classifier: nn.Module) -> Tensor:
        """Return the (C, C) logits of the embedded anchors, without dropout."""
        judge = classifier if self.separate_classifier is None else self.separate_classifier
        if not isinstance(judge, (nn.Linear, nn.Conv2d)):
            raise ValueError(f"classifier: {type(judge).__name__} is neither nn.Linear nor a 1x1 nn.Conv2d")
        wanted = (self.num_classes, self.feature_dim)
        shape = tuple(judge.weight.shape)
        if shape not in (wanted, (*wanted, 1, 1)):
            raise ValueError(f"classifier: weight shape {shape} is neither {wanted} nor {(*wanted, 1, 1)}")
        return F.linear(embedded_CD, judge.weight.flatten(start_dim=1), judge.bias)

    def _decide_gate(self, statistics: AnchorStatistics) -> Tensor:
        """Return a bool scalar on the device."""
        decision = gate_is_open(statistics, self.update_confidence)
        return torch.ones_like(decision) if self.gate == "always" else decision

    def _commit(self, moved_CD: Tensor, gate_open: Tensor) -> None:
        """Bind the state after this step; the tensors of earlier graphs stay as they are."""
        first = gate_open & (self.first_open_step < 0)
        self.first_open_step = torch.where(first, self.steps, self.first_open_step)
        self.semantic_anchors = moved_CD
        self.initialized = self.initialized | gate_open
        self.steps = self.steps + 1

    def _metrics(
        self, aux: Tensor, pull: Tensor, gate_open: Tensor, statistics: AnchorStatistics
    ) -> dict[str, Tensor]:
        """Return the detached scalars of ``METRIC_KEYS``; both losses unweighted."""
        dtype = torch.promote_types(self.semantic_anchors.dtype, torch.float32)
        values = (
            aux,
            pull,
            gate_open,
            statistics.confidence.min(),
            statistics.confidence.mean(),
            mean_pairwise_cosine(self.semantic_anchors),
            aux == 0,
            self.first_open_step,
        )
        return {key: value.detach().to(dtype) for key, value in zip(METRIC_KEYS, values, strict=True)}

    def _resting_output(self) -> RegularizerOutput:
        """Return the output of eval()."""
        zero = self.semantic_anchors.new_zeros(())
        metrics = dict.fromkeys(METRIC_KEYS, zero)
        metrics["train/first_open_step"] = self.first_open_step.to(zero.dtype)
        return RegularizerOutput(zero.clone(), metrics)


def _check(num_classes: int, feature_dim: int, **options: Any) -> None:
    """Refuse options out of range, and a single class."""
    check_sizes(num_classes, feature_dim)
    if num_classes == 1:
        raise ValueError(
            "num_classes: 1 is outside the allowed range [2, inf): the projector normalises over the rows of "
            "the classes, and one row has no variance"
        )
    check_options(SarConfig, **options)
