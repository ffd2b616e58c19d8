"""Semantic Anchor Regularization (Ge et al., AAAI 2024, arXiv 2312.11872).

Legend: C classes, D feature channels, A anchor dimension, E the projector, M the semantic anchors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.config.schema.regularizers import SarConfig
from sarx.regularizers.advance import is_recomputing
from sarx.regularizers.anchors import draw_anchors
from sarx.regularizers.checks import align_labels, check_place, check_sizes, linear_map
from sarx.regularizers.distributed import global_sum, world_size
from sarx.regularizers.functional import (
    AnchorStatistics,
    anchor_loss,
    anchor_statistics,
    class_counts,
    ema_update,
    mean_pairwise_cosine,
    open_gates,
    pull_weights,
    weighted,
)
from sarx.regularizers.output import RegularizerOutput
from sarx.regularizers.projector import build_projector
from sarx.regularizers.pull import pull_loss

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

    A training step: embed the anchors; l_c = -log p_c is the cross-entropy of E(A)_c through the classifier,
    and the aux loss weighs the l_c; the gate is open if every class is argmax-correct with
    p_c > ``update_confidence``; an open gate moves M <- ema_decay M + (1 - ema_decay) E(A), the first time
    M <- E(A); the pull loss is the mean over all valid pixels i of (1/D) ||f_i - M_{y_i}||^2 with the M just
    computed. While the gate is shut M rests and the pull is exactly 0. The loss is aux_weight * aux +
    pull_weight * pull. The aux loss reaches projector and classifier only, the pull loss the features only.

    Over several ranks the pull is the mean over the valid pixels of the global batch (the released code: of
    each rank); anchors and their statistics are the same on every rank, so nothing else is exchanged. The
    pull of one rank, and its metric, is its share of that mean times the number of ranks, so that the mean
    over ranks is the pull. Wrap this module together with the model, or projector and classifier gradients
    are not synchronised.

    Activation checkpointing repeats a forward with the state reached by then: of several checkpointed
    forwards before one backward, all but the first need ``advance=False``.

    Args:
        num_classes: C, at least 2.
        feature_dim: D.
        anchor_dim: A; ``feature_dim`` (published) is D.
        anchor_init: ``gaussian`` (published, rows as drawn from N(0, 1)); ``orthogonal`` (A >= C),
            ``simplex`` (A >= C - 1) or ``one_hot`` (A >= C), rows scaled to length sqrt(A).
        projector_depth: d blocks Linear-BN-ReLU make up E, published 3; 0 is E(A) = A and needs A = D.
        aux_weight: Weight of the anchor cross-entropy; 0 freezes what only that loss trains.
        pull_weight: Weight of the pull loss.
        aux_weighting: With U the classes of p_c <= filter_confidence: ``hard`` (published), sum over U of
            w_c l_c, w_c = l_c / sum over U of l, with gradient through w; ``detached``, the same value with w
            constant; ``uniform``, the mean of l_c over U.
        pull_target: ``ema`` (published), M as a constant; ``ema_undetached``, the value M with the gradient
            of E(A), so that the pull also trains E; ``current``, E(A) of this step as a constant;
            ``current_undetached``, E(A) of this step with its gradient.
        distance: Of f_i and its target m: ``squared_euclidean`` (published), (1/D) ||f - m||^2;
            ``smooth_l1``, (1/D) sum of Huber terms with threshold 1; ``cosine``, 1 - cos(f, m).
        pull_reduction: ``pixel`` (published), the mean over all valid pixels; ``class_balanced``, the mean
            over the classes of the batch of the mean over their pixels.
        feature_norm: Applied to f and m before the distance: ``none`` (published); ``l2``, length sqrt(D);
            ``layer``, mean 0 and variance 1 over the channels.
        ema_decay: Weight of the old M, in [0, 1); 0 makes M the E(A) of the last step with an open gate.
        filter_confidence: Anchors more confident than this leave the aux loss; 1 keeps all.
        update_confidence: Confidence that anchors must exceed to open the gate.
        gate: ``all`` (published); ``per_class``, class c moves M_c, and its pixels are pulled, only while c
            is argmax-correct with p_c > update_confidence, the mean staying over all valid pixels;
            ``always``, open from the first step on.
        anchor_classifier: Computes p: ``shared`` (published), the task's classifier, which learns from the
            aux loss; ``shared_frozen``, the same with its weights as constants, so that the aux loss trains E
            only; ``separate``, an own linear layer that the task never sees.
        ignore_index: Label of pixels that are not pulled.
        anchor_seed: Seed of the anchors' own generator, untouched by ``torch.manual_seed``; equal seeds give
            equal anchors on every rank. Vary it where runs should differ in their anchors.

    Attributes:
        anchors: (C, A) fixed.
        semantic_anchors: (C, D) M, zeros where no gate has opened yet. Each step binds a new tensor.
        initialized: (C,) bool, where M holds anything.
        steps: int64 scalar, forwards that advanced the state.
        first_open_step: int64 scalar, ``steps`` before the forward that first opened a gate; -1 if none.
        projector: nn.Sequential E, (C, A) -> (C, D).
        separate_classifier: nn.Linear (D -> C) or None.
        options: The options as given, to be read only.

    Raises:
        ValueError: For an option out of range or options that do not go together, naming them.
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
        anchor_dim: int | str = "feature_dim",
        anchor_init: str = "gaussian",
        projector_depth: int = 3,
        aux_weight: float = 1.0,
        pull_weight: float = 0.1,
        aux_weighting: str = "hard",
        pull_target: str = "ema",
        distance: str = "squared_euclidean",
        pull_reduction: str = "pixel",
        feature_norm: str = "none",
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
        check_sizes(num_classes, feature_dim, ignore_index)
        self.options = SarConfig(
            anchor_dim=anchor_dim,
            anchor_init=anchor_init,
            projector_depth=projector_depth,
            aux_weight=aux_weight,
            pull_weight=pull_weight,
            aux_weighting=aux_weighting,
            pull_target=pull_target,
            distance=distance,
            pull_reduction=pull_reduction,
            feature_norm=feature_norm,
            ema_decay=ema_decay,
            filter_confidence=filter_confidence,
            update_confidence=update_confidence,
            gate=gate,
            anchor_classifier=anchor_classifier,
        )
        self.options.check_sizes(num_classes, feature_dim)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.ignore_index = ignore_index
        width = self.options.width(feature_dim)
        self.projector = build_projector(width, feature_dim, self.options.projector_depth)
        self.separate_classifier = (
            nn.Linear(feature_dim, num_classes) if anchor_classifier == "separate" else None
        )
        self._freeze_untrained()
        drawn = draw_anchors(anchor_init, num_classes, width, anchor_seed)
        self.register_buffer("anchors", torch.empty(num_classes, width).copy_(drawn))
        self.register_buffer("semantic_anchors", torch.zeros(num_classes, feature_dim))
        self.register_buffer("initialized", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("first_open_step", torch.full((), -1, dtype=torch.int64))

    def _freeze_untrained(self) -> None:
        """Freeze what no loss trains: without a gradient, weight decay alone would move it."""
        if self.options.aux_weight:
            return
        if self.separate_classifier is not None:
            self.separate_classifier.requires_grad_(False)
        if not (self.options.pull_weight and self.options.pull_target.endswith("undetached")):
            self.projector.requires_grad_(False)

    def forward(
        self, features: Tensor, labels: Tensor, classifier: nn.Module, *, advance: bool = True
    ) -> RegularizerOutput:
        """Return the weighted loss and, in train(), advance gate and moving average by one step.

        In eval() nothing is computed or changed: the loss and all metrics are 0, except the first open step.

        Args:
            features: (N, D) or (B, D, H, W), what enters the classifier, before dropout.
            labels: (N,) or (B, H', W'), integer; a map is brought to (H, W) by the nearest rule.
            classifier: The task's nn.Linear or 1x1 nn.Conv2d, D -> C.
            advance: False for the second and later micro-batches of one optimizer step: the loss is that of
                the state reached, and nothing moves. Nothing moves either when activation checkpointing
                repeats a forward.

        Raises:
            ValueError: For shapes, labels or a classifier that do not fit.
        """
        if not self.training:
            return self._resting_output()
        advance = advance and not is_recomputing()
        check_place(self)
        labels = align_labels(
            features,
            labels,
            num_classes=self.num_classes,
            feature_dim=self.feature_dim,
            ignore_index=self.ignore_index,
        )
        with torch.autocast(features.device.type, enabled=False):
            embedded_CD = self.projector(self.anchors, track=advance)
            statistics = anchor_statistics(self._classify(embedded_CD, classifier))
            aux = anchor_loss(
                statistics.log_confidence, self.options.filter_confidence, self.options.aux_weighting
            )
            open_C = open_gates(statistics, self.options.update_confidence, self.options.gate)
            moved_CD = self._move(embedded_CD, open_C) if advance else self.semantic_anchors
            holds_C = open_C if advance else open_C & self.initialized
            pull = self._pull(features, labels, self._targets(moved_CD, embedded_CD), holds_C)
            loss = weighted(aux, self.options.aux_weight) + weighted(pull, self.options.pull_weight)
        if advance:
            self._commit(moved_CD, open_C)
        return RegularizerOutput(loss, self._metrics(aux, pull, open_C, statistics))

    def _classify(self, embedded_CD: Tensor, classifier: nn.Module) -> Tensor:
        """Return the (C, C) logits of the embedded anchors, without dropout."""
        judge = classifier if self.separate_classifier is None else self.separate_classifier
        weight, bias = linear_map(judge, self.num_classes, self.feature_dim)
        weight, bias = weight.to(embedded_CD.dtype), None if bias is None else bias.to(embedded_CD.dtype)
        if self.options.anchor_classifier == "shared_frozen":
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return F.linear(embedded_CD, weight, bias)

    def _move(self, embedded_CD: Tensor, open_C: Tensor) -> Tensor:
        """Return (C, D) M after this step: rows of open gates move, the first time all the way."""
        blended_CD = ema_update(
            self.semantic_anchors,
            embedded_CD.detach(),
            self.initialized[:, None],
            self.options.ema_decay or 0.0,
        )
        return torch.where(open_C[:, None], blended_CD, self.semantic_anchors)

    def _targets(self, moved_CD: Tensor, embedded_CD: Tensor) -> Tensor:
        """Return what the features are pulled to."""
        target = self.options.pull_target
        if target == "ema":
            return moved_CD
        if target == "ema_undetached":
            return moved_CD + (embedded_CD - embedded_CD.detach())
        return embedded_CD.detach() if target == "current" else embedded_CD

    def _pull(self, features: Tensor, labels: Tensor, targets_CD: Tensor, open_C: Tensor) -> Tensor:
        """Return the pull loss, normalised over the batch of all ranks; exactly 0 where gates are shut."""
        counts = global_sum(class_counts(labels, self.num_classes, self.ignore_index))
        weights = pull_weights(
            counts, open_C, self.options.pull_reduction, ranks=world_size(), dtype=targets_CD.dtype
        )
        return pull_loss(
            features,
            labels,
            targets_CD,
            weights,
            ignore_index=self.ignore_index,
            distance=self.options.distance,
            feature_norm=self.options.feature_norm,
        )

    def _commit(self, moved_CD: Tensor, open_C: Tensor) -> None:
        """Bind the state after this step; the tensors of earlier graphs stay as they are."""
        first = open_C.any() & (self.first_open_step < 0)
        self.first_open_step = torch.where(first, self.steps, self.first_open_step)
        self.semantic_anchors = moved_CD
        self.initialized = self.initialized | open_C
        self.steps = self.steps + 1

    def _metrics(
        self, aux: Tensor, pull: Tensor, open_C: Tensor, statistics: AnchorStatistics
    ) -> dict[str, Tensor]:
        """Return the detached scalars of ``METRIC_KEYS``; losses unweighted, the gate as a share."""
        dtype = torch.promote_types(self.semantic_anchors.dtype, torch.float32)
        values = (
            aux,
            pull,
            open_C.to(dtype).mean(),
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
