"""Options of Semantic Anchor Regularization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option
from sarx.config.schema.regularizers.declare import check_ema

_D = TypeVar("_D", int, int | None)

PULL_OPTIONS = frozenset({"ema_decay", "ema_half_life", "gate", "update_confidence", "pull_target"})
PULL_OPTIONS |= {"distance", "pull_reduction", "feature_norm"}
"""Options that nothing reads when nothing is pulled."""
AUX_OPTIONS = frozenset({"filter_confidence", "aux_weighting"})
"""Options that only the anchor cross-entropy reads."""
ANCHOR_OPTIONS = frozenset({"anchor_dim", "anchor_init", "projector_depth", "anchor_classifier"})
"""Options that nothing reads when the anchors are neither classified nor pulled to."""


@dataclass(kw_only=True, slots=True)
class SarConfig:
    """The defaults are the published run; what each option does is said in ``sarx.regularizers.sar``."""

    implementation: ClassVar[str] = "sarx.regularizers.sar:SemanticAnchorRegularizer"
    name: str = "sar"
    anchor_dim: int | str = option("feature_dim", low=2, high=8192, choices=("feature_dim",))
    anchor_init: str = option("gaussian", choices=("gaussian", "orthogonal", "simplex", "one_hot"))
    projector_depth: int = option(3, low=0, high=10)
    anchor_classifier: str = option("shared", choices=("shared", "shared_frozen", "separate"))
    gate: str = option("all", choices=("all", "per_class", "always"))
    aux_weight: float = option(1.0, low=0.0, high=1000.0)
    pull_weight: float = option(0.1, low=0.0, high=1000.0)
    aux_weighting: str = option("hard", choices=("hard", "detached", "uniform"))
    pull_target: str = option("ema", choices=("ema", "ema_undetached", "current", "current_undetached"))
    distance: str = option("squared_euclidean", choices=("squared_euclidean", "cosine", "smooth_l1"))
    pull_reduction: str = option("pixel", choices=("pixel", "class_balanced"))
    feature_norm: str = option("none", choices=("none", "l2", "layer"))
    ema_decay: float | None = option(0.999, low=0.0, below=1.0)
    ema_half_life: float | None = option(None, above=0.0, high=10.0)
    filter_confidence: float = option(0.9, above=0.0, high=1.0)
    update_confidence: float = option(0.8, low=0.0, below=1.0)

    def __post_init__(self) -> None:
        """Check every field, and that one of the two ways to give the averaging time is used."""
        check_fields(self, "regularizer")
        check_ema(self.ema_decay, self.ema_half_life)

    def check_sizes(self, num_classes: int | None, feature_dim: int | None) -> None:
        """Refuse anchors that cannot exist.

        Args:
            num_classes: C, or None where it is not known yet.
            feature_dim: D, or None where it is not known yet.

        Raises:
            UserError: Naming the option and what would be right.
        """
        dim = self.width(feature_dim)
        if num_classes == 1:
            raise UserError(
                "1 is outside the allowed range [2, inf): the projector normalises over the rows of the "
                "classes, and one row has no variance",
                key="num_classes",
            )
        if self.projector_depth == 0 and dim is not None and feature_dim is not None and dim != feature_dim:
            raise UserError(
                f"0 is the identity, which needs anchor_dim = feature_dim; they are {dim} and {feature_dim}",
                key="regularizer.projector_depth",
            )
        if num_classes is None or dim is None:
            return
        needed = {"orthogonal": num_classes, "one_hot": num_classes, "simplex": num_classes - 1}
        if dim < needed.get(self.anchor_init, 0):
            raise UserError(
                f"{self.anchor_init} anchors of {num_classes} classes need at least "
                f"{needed[self.anchor_init]} dimensions; anchor_dim is {dim}",
                key="regularizer.anchor_init",
            )

    def width(self, feature_dim: _D) -> int | _D:
        """Return A, given D."""
        return feature_dim if isinstance(self.anchor_dim, str) else self.anchor_dim

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act.

        Without the pull nothing reads the semantic anchors or the gate; without the anchor cross-entropy
        nothing reads its filter, and with neither nothing reads the anchors. Without the pull, anchors
        that a frozen or an own classifier judges reach nothing of the task. A target that is E(A) of the step
        needs no average, and neither do anchors that no projector moves.
        """

        def fixed(name: str, *values: object) -> bool:
            return getattr(self, name) in values and f"regularizer.{name}" not in searched

        pulls = not fixed("pull_weight", 0.0)
        trains_anchors = not fixed("aux_weight", 0.0)
        names: set[str] = set()
        if not pulls:
            names |= PULL_OPTIONS
            if trains_anchors and fixed("anchor_classifier", "shared_frozen", "separate"):
                names |= AUX_OPTIONS | {"aux_weight"} | ANCHOR_OPTIONS - {"anchor_classifier"}
        if fixed("gate", "always"):
            names.add("update_confidence")
        if fixed("pull_target", "current", "current_undetached"):
            names |= {"ema_decay", "ema_half_life"}
        if fixed("projector_depth", 0):
            names |= {"ema_decay", "ema_half_life", "pull_target"}
            if fixed("anchor_classifier", "shared_frozen"):
                names |= AUX_OPTIONS | {"aux_weight"}
        if not trains_anchors:
            names |= AUX_OPTIONS
        if not pulls and not trains_anchors:
            names |= ANCHOR_OPTIONS
        return frozenset(names)

    def warnings(self) -> tuple[str, ...]:
        """Say when the regularizer, or a part of it, cannot act."""
        found: list[str] = []
        same = "computes what regularizer=none computes, bit for bit"
        teaches = self.aux_weight > 0 and self.anchor_classifier == "shared"
        if self.pull_weight == 0 and not teaches:
            found.append(
                f"nothing is pulled and no anchor teaches the task's classifier: {same}; remove the arm"
            )
        elif self.aux_weight == 0 and self.gate == "all":
            found.append(
                "aux_weight is 0: nothing trains projector or classifier on the anchors, so the gate is not "
                f"expected to open; while it is shut, {same}; give it gate: always or a positive aux_weight"
            )
        elif self.aux_weight == 0 and self.gate == "per_class":
            found.append(
                "aux_weight is 0: nothing trains projector or classifier on the anchors, so gates open by "
                "chance; give it gate: always or a positive aux_weight"
            )
        if self.filter_confidence < self.update_confidence and self.gate != "always" and self.pull_weight > 0:
            found.append(
                f"anchors leave the aux loss at filter_confidence {self.filter_confidence:g}, below the "
                f"{self.update_confidence:g} that opens the gate, which may then stay shut"
            )
        if self.projector_depth == 0 and self.anchor_classifier == "shared_frozen":
            found.append("projector_depth is 0 and the classifier frozen: nothing learns from the aux loss")
        if self.ema_decay == 0 and self.pull_target.startswith("ema") and self.pull_weight > 0:
            equal = self.pull_target.replace("ema", "current")
            found.append(f"ema_decay is 0: pull_target {self.pull_target} is the same as {equal}")
        if self.distance == "cosine" and self.feature_norm == "l2" and self.pull_weight > 0:
            found.append("distance is cosine, which does not change with feature_norm l2; leave it none")
        return tuple(found)
