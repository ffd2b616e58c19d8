"""What the arms of a plan set: options that an arm, its factor levels or the base give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REBALANCED = frozenset({"logit_adjusted", "class_balanced"})
"""Losses that weigh classes by their frequency."""


@dataclass(frozen=True)
class ArmOptions:
    """Options of one row as far as the ledger states them; what it leaves at the default is not known.

    Attributes:
        arm: name of the arm.
        level: factor level, '' without factors.
        given: what the arm and its factor levels set; None if the ledger does not say.
        base: what the study's base sets, as text.
        inert: what the plan warned about: options that cannot act.
    """

    arm: str
    level: str
    given: Mapping[str, Any] | None
    base: Mapping[str, str]
    inert: tuple[str, ...]

    def value(self, key: str) -> Any:
        """Return a stated value; None if neither the arm nor the base states one."""
        given = self.given or {}
        return given[key] if key in given else self.base.get(key)

    def is_zero(self, key: str) -> bool:
        """Return whether a number is stated and is 0."""
        value = self.value(key)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return False
        return isinstance(value, int | float) and not isinstance(value, bool) and value == 0

    @property
    def loss(self) -> str:
        """Return the stated task loss, '' for the default."""
        return str(self.value("loss") or "")

    @property
    def may_be_sar(self) -> bool:
        """Return whether the regularizer is SAR, or is not stated."""
        return self.value("regularizer") in ("sar", None)


def arm_options(opening: Mapping[str, Any]) -> list[ArmOptions]:
    """Return the options of every row of the plan.

    Args:
        opening: payload of a ``study_opened``.
    """
    texts = (opening.get("plan") or {}).get("base") or []
    base = {key.strip(): value.strip() for key, _, value in (str(text).partition("=") for text in texts)}
    return [
        ArmOptions(
            row["arm"],
            row.get("level") or "",
            row.get("overrides"),
            base,
            tuple(row.get("warnings") or ()),
        )
        for row in opening.get("arms") or ()
    ]
