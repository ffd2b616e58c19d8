"""Main effects and two-factor interactions of factorial and fractional designs: arrays in, arrays out.

R arms of the design, E effects, K confirm seeds. Every effect is a contrast, a weighted sum of the arms'
values with weights that add up to 0, computed seed by seed: then a paired t interval holds over seeds.

Main effect of a component, level A against level B: the mean over arms with A minus the mean over arms with
B, in pairs of arms that are equal in everything else.

Interaction of two components, A against B and C against D: half the difference of differences,
((AC - BC) - (AD - BD)) / 2, averaged in the same way. It is how much more A brings beside C than on average.

Source: Box, Hunter and Hunter, "Statistics for Experimenters", 2005, chapters 5 and 6.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics import Array

Cells = Sequence[Mapping[str, str]]
"""The level of every component, of every arm."""
Levels = Mapping[str, Sequence[str]]
"""The levels of every component; the first is the component present."""
_EXACT = 1e-9


@dataclass(frozen=True)
class Effect:
    """One effect, or the reason why the arms cannot show it.

    Attributes:
        name: ``pull: on - off`` or ``pull (on - off) x distance (squared - cosine)``.
        weights: of the arms (R,); all 0 if refused.
        used: over how many combinations of the other components it is a mean, '' in fractions.
        aliases: effects of two components that the arms cannot tell from it: it is the sum of them all.
        refused: why there is no estimate, '' if there is one.
    """

    name: str
    weights: Array
    used: str = ""
    aliases: tuple[str, ...] = ()
    refused: str = ""


def factorial_effects(cells: Cells, levels: Levels) -> list[Effect]:
    """Return the effects of a factorial design: main effects first, each level against the first.

    Where cells were left out, an effect is the mean over the combinations of the other components that have
    all cells it needs; without any it is refused. That needs no model, and with all cells there it is the
    least squares estimate.
    """
    found = []
    for name, of_name in levels.items():
        for other in of_name[1:]:
            found.append(_matched(cells, levels, {name: (of_name[0], other)}))
    for one, two in itertools.combinations(levels, 2):
        for first, second in itertools.product(levels[one][1:], levels[two][1:]):
            pairs = {one: (levels[one][0], first), two: (levels[two][0], second)}
            found.append(_matched(cells, levels, pairs))
    return found


def fractional_effects(cells: Cells, levels: Levels) -> list[Effect]:
    """Return the effects of a two-level fraction, by least squares on the arms that are there.

    The columns of main effects and interactions, +1 and -1 over the arms, say what is aliased: equal columns,
    or opposite ones, share an estimate. Interactions that share one are a single effect, their sum; one that
    is aliased with a main effect is refused, and so are main effects aliased with each other. If cells of the
    fraction were left out, an effect that the other effects make up in part is refused as well.
    """
    names = list(levels)
    signs = {
        name: np.array([1.0 if cell[name] == levels[name][0] else -1.0 for cell in cells]) for name in names
    }
    columns: dict[tuple[str, ...], Array] = {(name,): signs[name] for name in names}
    columns |= {pair: signs[pair[0]] * signs[pair[1]] for pair in itertools.combinations(names, 2)}
    groups: list[list[tuple[str, ...]]] = []
    for term in columns:
        twins = [group for group in groups if abs(_agreement(columns[group[0]], columns[term])) == 1]
        if twins:
            twins[0].append(term)
        else:
            groups.append([term])
    constant = [group for group in groups if abs(columns[group[0]].mean()) == 1]
    free = [group for group in groups if group not in constant]
    design = np.column_stack([np.ones(len(cells)), *(columns[group[0]] for group in free)])
    inverse = np.linalg.pinv(design)
    estimable = np.abs(inverse @ design - np.eye(design.shape[1])).max(axis=1) < 1e-6
    found = [effect for group in constant for effect in _refuse_constant(group, levels, len(cells))]
    for position, group in enumerate(free, start=1):
        signed = [_signed(columns[group[0]], columns[term], _name(term, levels)) for term in group]
        weights = 2 * inverse[position] if estimable[position] else np.zeros(len(cells))
        found += _of_group(group, signed, weights, bool(estimable[position]), levels)
    order = {_name(term, levels): place for place, term in enumerate(columns)}
    return sorted(found, key=lambda effect: order[effect.name])


def per_seed(effects: Sequence[Effect], values_RK: Array) -> Array:
    """Return every effect on every seed (E, K); NaN where refused, or an arm that it needs has no value."""
    found = np.full((len(effects), values_RK.shape[1]), np.nan)
    finite = np.where(np.isfinite(values_RK), values_RK, np.nan)
    for row, effect in enumerate(effects):
        arms = involved(effect)
        if len(arms):
            found[row] = effect.weights[arms] @ finite[arms]
    return found


def involved(effect: Effect) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the arms with a weight."""
    return np.flatnonzero(np.abs(effect.weights) > _EXACT)


def _matched(cells: Cells, levels: Levels, pairs: Mapping[str, tuple[str, str]]) -> Effect:
    """Return the effect of one or two components as a mean over matched cells."""
    others = [name for name in levels if name not in pairs]
    place = {tuple(cell[name] for name in levels): row for row, cell in enumerate(cells)}
    corners = list(itertools.product((0, 1), repeat=len(pairs)))
    weights = np.zeros(len(cells))
    used = 0
    for rest in itertools.product(*(levels[name] for name in others)):
        fixed = dict(zip(others, rest, strict=True))
        rows = []
        for corner in corners:
            at = fixed | {name: pairs[name][side] for name, side in zip(pairs, corner, strict=True)}
            rows.append(place.get(tuple(at[name] for name in levels)))
        if any(row is None for row in rows):
            continue
        used += 1
        for row, corner in zip(rows, corners, strict=True):
            weights[row] += (-1.0) ** sum(corner)
    name = " x ".join(_pair(key, pair, len(pairs)) for key, pair in pairs.items())
    most = math.prod(len(levels[key]) for key in others)
    if not used:
        size = "two arms differ in it alone" if len(pairs) == 1 else "four arms differ in these two alone"
        return Effect(name, weights, refused=f"no {size}")
    return Effect(name, weights / (used * len(pairs)), f"{used} of {most}")


def _of_group(
    group: list[tuple[str, ...]], signed: list[str], weights: Array, estimable: bool, levels: Levels
) -> list[Effect]:
    """Return what a group of effects with one column gives: one estimate, or the reasons against it."""
    none = np.zeros_like(weights)
    if not estimable:
        reason = "cells of the fraction were left out: not clear of the other effects"
        return [Effect(_name(term, levels), none, refused=reason) for term in group]
    mains = [term for term in group if len(term) == 1]
    if len(mains) > 1:
        texts = [_name(term, levels) for term in mains]
        return [
            Effect(text, none, refused=f"aliased with {', '.join(other for other in texts if other != text)}")
            for text in texts
        ] + _behind(group, mains[0], none, levels)
    head = [Effect(_name(group[0], levels), weights, aliases=tuple(signed[1:]))]
    return head + (_behind(group, mains[0], none, levels) if mains else [])


def _behind(group: list[tuple[str, ...]], main: tuple[str, ...], none: Array, levels: Levels) -> list[Effect]:
    """Return the interactions of a group, refused since its main effect has the same column."""
    reason = f"aliased with the main effect {_name(main, levels)}"
    return [Effect(_name(term, levels), none, refused=reason) for term in group if len(term) == 2]


def _refuse_constant(group: list[tuple[str, ...]], levels: Levels, arms: int) -> list[Effect]:
    """Return the effects whose column is the same in all arms."""
    return [Effect(_name(term, levels), np.zeros(arms), refused="the same in all arms") for term in group]


def _agreement(first: Array, second: Array) -> float:
    """Return 1 for equal columns of signs, -1 for opposite ones."""
    return float((first * second).mean())


def _signed(first: Array, second: Array, name: str) -> str:
    """Return the name of an alias, with its sign in the sum."""
    return f"{'+' if _agreement(first, second) > 0 else '-'} {name}"


def _name(term: tuple[str, ...], levels: Levels) -> str:
    """Return the name of the effect of one or two components with two levels."""
    return " x ".join(_pair(key, (levels[key][0], levels[key][-1]), len(term)) for key in term)


def _pair(name: str, pair: tuple[str, str], size: int) -> str:
    """Return ``pull: on - off``, or ``pull (on - off)`` in an interaction."""
    text = f"{pair[0]} - {pair[1]}"
    return f"{name}: {text}" if size == 1 else f"{name} ({text})"
