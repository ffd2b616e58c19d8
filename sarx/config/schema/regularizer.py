"""Options of the regularizers. The equations behind each option stand in sarx.regularizers."""

from __future__ import annotations

from dataclasses import dataclass

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option


@dataclass(kw_only=True, slots=True)
class NoRegularizerConfig:
    """The task loss alone."""

    name: str = "none"

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "regularizer")

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act."""
        return frozenset()

    def warnings(self) -> tuple[str, ...]:
        """Return what a reader of the plan must know."""
        return ()


@dataclass(kw_only=True, slots=True)
class PrototypeEmaConfig:
    """Pull towards moving averages of the class means of the features."""

    name: str = "prototype_ema"
    pull_weight: float = option(0.1, low=0.0, high=1000.0)
    ema_decay: float | None = option(0.999, low=0.0, below=1.0)
    ema_half_life: float | None = option(None, above=0.0, high=10.0)

    def __post_init__(self) -> None:
        """Check every field and that one of the two ways to give the averaging time is used."""
        check_fields(self, "regularizer")
        check_ema(self.ema_decay, self.ema_half_life)

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act: the averaging time when nothing is pulled."""
        pulls = self.pull_weight > 0 or "regularizer.pull_weight" in searched
        return frozenset() if pulls else frozenset({"ema_decay", "ema_half_life"})

    def warnings(self) -> tuple[str, ...]:
        """Say when the regularizer cannot act at all."""
        if self.pull_weight == 0:
            return ("pull_weight is 0: computes exactly what regularizer=none computes",)
        return ()


@dataclass(kw_only=True, slots=True)
class SarConfig:
    """Semantic Anchor Regularization; the defaults are the published constants."""

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


def check_ema(ema_decay: float | None, ema_half_life: float | None) -> None:
    """Refuse both or neither of the two ways to give the averaging time."""
    if (ema_decay is None) == (ema_half_life is None):
        raise UserError(
            "give exactly one of ema_decay and ema_half_life, the other null", key="regularizer.ema_half_life"
        )
