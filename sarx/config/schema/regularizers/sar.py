"""Options of Semantic Anchor Regularization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.schema.options import check_fields, option
from sarx.config.schema.regularizers.declare import check_ema


@dataclass(kw_only=True, slots=True)
class SarConfig:
    """Semantic Anchor Regularization; the defaults are the published constants."""

    implementation: ClassVar[str] = "sarx.regularizers.sar:SemanticAnchorRegularizer"
    name: str = "sar"
    anchor_dim: int | str = option("feature_dim", low=2, high=8192, choices=("feature_dim",))
    anchor_classifier: str = option("shared", choices=("shared", "separate"))
    gate: str = option("all", choices=("all", "always"))
    aux_weight: float = option(1.0, low=0.0, high=1000.0)
    pull_weight: float = option(0.1, low=0.0, high=1000.0)
    ema_decay: float | None = option(0.999, low=0.0, below=1.0)
    ema_half_life: float | None = option(None, above=0.0, high=10.0)
    filter_confidence: float = option(0.9, above=0.0, high=1.0)
    update_confidence: float = option(0.8, low=0.0, below=1.0)

    def __post_init__(self) -> None:
        """Check every field and that one of the two ways to give the averaging time is used."""
        check_fields(self, "regularizer")
        check_ema(self.ema_decay, self.ema_half_life)

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act.

        Without the pull nothing reads the semantic anchors or the gate; without the anchor cross-entropy
        nothing reads its filter, and with neither nothing reads the anchors.
        """
        pulls = self.pull_weight > 0 or "regularizer.pull_weight" in searched
        trains_anchors = self.aux_weight > 0 or "regularizer.aux_weight" in searched
        names: set[str] = set()
        if not pulls:
            names |= {"ema_decay", "ema_half_life", "gate", "update_confidence"}
        if self.gate == "always" and "regularizer.gate" not in searched:
            names.add("update_confidence")
        if not trains_anchors:
            names.add("filter_confidence")
        if not pulls and not trains_anchors:
            names |= {"anchor_dim", "anchor_classifier"}
        return frozenset(names)

    def warnings(self) -> tuple[str, ...]:
        """Say when the regularizer cannot act."""
        if self.aux_weight == 0 and (self.gate == "all" or self.pull_weight == 0):
            cure = (
                "give it gate: always or a positive aux_weight" if self.pull_weight > 0 else "remove the arm"
            )
            return (
                "aux_weight is 0, so the gate is unlikely ever to open and nothing is pulled: "
                f"computes what regularizer=none computes, bit for bit; {cure}",
            )
        return ()
