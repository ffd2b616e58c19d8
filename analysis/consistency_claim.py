"""The claim of the paper's Figure 1 as a number: are the class means of SAR alike over seeds, more than CE's?

"Semantic anchors keep the layout of classes" is the difference, SAR minus cross-entropy, in the agreement of
class means over pairs of seeds (``analysis.consistency``), with its paired delete-one-seed jackknife.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from analysis.arrays import Arrays
from analysis.consistency import Estimate, jackknife, layout_pairs
from analysis.numbers import decimals_for, interval, p_value
from analysis.statistics import Array, holm, two_sided_p

ALPHA = 0.05
PLAIN = "cross_entropy"
"""What the plain arm is called where its options do not tell."""

SAR, ANCHORS = "sar", "semantic_anchors"
Seeds = Sequence[Arrays | None]


class Claim(NamedTuple):
    """SAR against plain cross-entropy: the paired difference and the p value of its t on n - 1."""

    arm: str
    plain: str
    difference: Estimate
    p: float

    @property
    def word(self) -> str:
        """Return what may be said."""
        if self.difference.value == 0 == self.difference.error:
            return "identical"
        if not self.p <= ALPHA:
            return "undecided"
        return "more alike over seeds" if self.difference.value > 0 else "less alike over seeds"


def plain_arm(events: pl.DataFrame) -> str | None:
    """Return the arm without regularizer and with plain cross-entropy; None if the study has none.

    By the overrides and the base of the last ``study_opened``; else the arm that is called so.
    """
    opened = events.filter(pl.col("event") == "study_opened")["payload"]
    payload: dict[str, Any] = json.loads(opened[-1] or "{}") if len(opened) else {}
    base = dict(text.split("=", 1) for text in (payload.get("plan") or {}).get("base") or () if "=" in text)
    rows = payload.get("arms") or []
    for row in rows:
        options = base | (row.get("overrides") or {})
        if options.get("regularizer") == "none" and options.get("loss", PLAIN) == PLAIN:
            return str(row["arm"])
    return PLAIN if any(row["arm"] == PLAIN for row in rows) else None


def claims(seeds: Mapping[str, Mapping[str, Seeds]], reference: str, plain: str | None) -> dict[str, Claim]:
    """Return the claim of each level that can make it; p values are Holm-adjusted over the levels.

    Args:
        seeds: Level -> arm -> what each confirm seed left, ``class_means`` and ``semantic_anchors``, or None.
        reference: The study's reference; see ``anchored_arm``.
        plain: The arm with plain cross-entropy, if there is one.
    """
    found: dict[str, Claim] = {}
    for level, arms in seeds.items():
        arm = anchored_arm(arms, reference)
        if arm is not None and plain is not None and plain in arms and arm != plain:
            pairs = [layout_pairs(arms[name], "class_means") for name in (arm, plain)]
            found[level] = claim(arm, plain, *pairs)
    adjusted = holm(np.array([made.p for made in found.values()]))
    return {
        level: made._replace(p=p) for (level, made), p in zip(found.items(), adjusted.tolist(), strict=True)
    }


def anchored_arm(arms: Mapping[str, Seeds], reference: str) -> str | None:
    """Return the arm that stands for SAR; None if no arm has semantic anchors.

    Of those that have, the reference, else the one called ``sar``, else the first.
    """
    anchored = [
        arm
        for arm, of_arm in arms.items()
        if any(arrays is not None and ANCHORS in arrays for arrays in of_arm)
    ]
    return next((arm for arm in (reference, SAR, *anchored) if arm in anchored), None)


def claim(arm: str, plain: str, pairs_KK: Array, plain_KK: Array) -> Claim:
    """Return the claim for an arm.

    Args:
        arm: Name of the arm.
        plain: Name of the arm with plain cross-entropy.
        pairs_KK: Agreement of the class means of every pair of seeds of the arm.
        plain_KK: The same of the plain arm.
    """
    found = jackknife(pairs_KK - plain_KK)
    if not found.error > 0:
        return Claim(arm, plain, found, float("nan"))
    statistic = np.array([found.value / found.error])
    return Claim(arm, plain, found, float(two_sided_p(statistic, np.array([found.seeds - 1.0]))[0]))


def sentence(made: Claim, level: str = "") -> str:
    """Return the claim in words, with its numbers."""
    found = made.difference
    where = f" ({level})" if level else ""
    start = f"Consistency of class means over seeds, {made.arm} minus {made.plain}{where}"
    if not np.isfinite(found.error):
        return f"{start}: not yet, it takes 3 seeds that both arms finished."
    decimals = decimals_for(np.array([(found.high - found.low) / 2]))
    shown = interval(found.value, found.low, found.high, decimals, signed=True)
    return f"{start}: {shown}, {found.seeds} seeds, p {p_value(made.p)}: {made.word}."
