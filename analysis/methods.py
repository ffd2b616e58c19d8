"""The methods paragraph of a paper, filled from the ledger; what the ledger does not say is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from analysis.claims import Opening
from analysis.comparison import Comparison
from analysis.missing import confirm_progress
from analysis.numbers import number
from analysis.opened import Study
from analysis.pairing import common_proposals, confirm_seeds_fresh, confirm_seeds_paired, from_scratch
from analysis.provenance import Starts, commit_text, devices_text, training_devices
from analysis.results import NO_WINNER
from analysis.search_caption import search_statements
from analysis.slope import imbalance_lines
from analysis.sources import Sources

_SAMPLERS = {
    "qmc": "quasi-random",
    "random": "random",
    "grid": "grid",
    "tpe": "TPE",
    "gp": "Gaussian process",
    "cmaes": "CMA-ES",
}
_PACKAGES = {"python": "Python", "torch": "PyTorch", "ray": "Ray", "optuna": "Optuna"}
Payload = Mapping[str, Any]


def methods(sources: Sources) -> str:
    """Return the paragraph: what was compared, how it was tuned, confirmed and tested, what came of it."""
    opening = Opening(sources.events).payload
    study, comparison = sources.study, sources.comparison
    ended, able = (sum(counts) for counts in confirm_progress(study, comparison))
    interim = ended < able or study.seeds < study.planned_seeds
    sentences = []
    if interim:
        sentences.append(
            f"Interim report of a running or unfinished study ({ended} of {able} confirm trials have ended)."
        )
    sentences.append(_compared(study, opening, interim))
    sentences += _tuned(sources, opening, interim)
    sentences += _confirmed(sources, interim)
    sentences += _tested(study, comparison)
    if late := study.late_changes:
        sentences.append(f"After confirm results were known the plan changed ({'; '.join(late)}).")
    sentences += _outcome(study, comparison, interim)
    sentences += _software(sources)
    return " ".join(sentences)


def _compared(study: Study, opening: Payload, interim: bool) -> str:
    """Say what is compared with what, and on which base configuration."""
    arms = list(dict.fromkeys(arm.arm for arm in study.arms))
    levels = study.levels
    at = f" at each of {len(levels)} levels ({', '.join(levels)})" if len(levels) > 1 else ""
    base = (opening.get("plan") or {}).get("base") or []
    configured = f"; base configuration: {', '.join(map(str, base))}" if base else ""
    return (
        f"{_are(len(arms), 'arm', interim)} compared{at}: {', '.join(arms)}; the reference is "
        f"{study.reference}{configured}."
    )


def _tuned(sources: Sources, opening: Payload, interim: bool) -> list[str]:
    """Say how much each arm was tuned, over what, and how its winner was chosen."""
    study = sources.study
    if not study.tuned:
        return ["No arm was tuned: all use the default settings."]
    plan = study.search
    names = list(dict.fromkeys(arm.arm for arm in study.arms))
    who = f"Each of the {len(names)} arms" if not plan.shared else f"Of all arms only {plan.shared}"
    searches = f"{plan.repeats} independent searches of " if plan.repeats > 1 else ""
    steps = f" of {study.steps} steps" if study.steps and not plan.overrides else ""
    how = [_SAMPLERS.get(plan.sampler, plan.sampler)]
    if not plan.shared:
        points, seeds = common_proposals(sources.events)
        how += ["common proposals"] if points else []
        how += ["trial i on the same seed in every arm"] if seeds else []
    trials = f"{study.trials_per_arm} trial{'s' if study.trials_per_arm > 1 else ''}"
    tuned = [
        f"{who} {_was(interim)} tuned on {study.selection} with {searches}{trials}{steps} "
        f"({', '.join(how)}){_space(study, opening)}."
    ]
    if plan.shared:
        tuned.append(f"All other arms use the optimum of {plan.shared}.")
    if study.objective and not plan.finalists:
        best = "highest" if study.mode == "max" else "lowest"
        tuned.append(
            f"The winner of a search is the trial with the {best} {study.objective} at its last step."
        )
    facts = sources.facts
    return tuned + search_statements(study, facts.searches, facts.rungs, facts.proxy)[1:] + _spent(sources)


def _space(study: Study, opening: Payload) -> str:
    """Return what was searched with its ranges, and how many of it the arms have."""
    counts = [len(arm.parameters) for arm in study.arms if not study.is_follower(arm)]
    tuned = {name for arm in study.arms for name in arm.parameters}
    ranges = (opening.get("plan") or {}).get("space") or {}
    names = [name for name in dict.fromkeys([*ranges, *sorted(tuned)]) if name in tuned]
    shown = [f"{name} in {_range(str(ranges[name]))}" if name in ranges else name for name in names]
    low, high = min(counts), max(counts)
    share = "" if low == high else f"; each arm those that act in it, {low} to {high} of them"
    return f" over {', '.join(shown)}{share}"


def _range(text: str) -> str:
    """Return ``.001 to .1 (log)`` for a range as the plan prints it."""
    scaled = text.removesuffix(" log")
    return scaled.replace(" .. ", " to ") + (" (log)" if scaled != text else "")


def _spent(sources: Sources) -> list[str]:
    """Say what became of the search trials, where any did not simply run to the end."""
    searches = sources.facts.searches
    words = {
        "trials": "ran to the end",
        "stopped": "stopped early",
        "duplicates": "duplicates",
        "diverged": "diverged",
        "failed": "failed",
    }
    counts = {name: int(searches[name].sum()) for name in words}
    planned = sum(sources.study.trials_of(arm) for arm in sources.study.arms)
    if counts["trials"] == planned:
        return []
    parts = [f"{count} {words[name]}" for name, count in counts.items() if count]
    return [f"Of {planned} search trials: {', '.join(parts) or 'none has ended'}."]


def _confirmed(sources: Sources, interim: bool) -> list[str]:
    """Say on which seeds the results were trained, and what is reported of them."""
    study = sources.study
    what = "Winners" if study.tuned else "All arms"
    scratch = " from scratch" if from_scratch(sources.events) else ""
    fresh, paired = confirm_seeds_fresh(sources), confirm_seeds_paired(sources)
    kind = (["fresh"] if fresh and study.tuned else []) + (["paired"] if paired else [])
    seeds = f"{' '.join([str(study.seeds), *kind])} seed{'s' if study.seeds > 1 else ''}"
    steps = f" for {study.steps} steps" if study.steps else ""
    again = "retrained" if study.tuned else "trained"
    images = " on all training images" if study.held_out else ""
    lines = [f"{what} {_were(interim)} {again}{scratch}{images} on {seeds}{steps}."]
    if fresh is False:
        lines.append("Some of these seeds were used by the search too.")
    if study.tuned and study.search.repeats > 1:
        lines.append(f"Confirm seed k uses the winner of search k mod {study.search.repeats}.")
    elif study.tuned:
        lines.append("Claims are conditional on the tuned configurations.")
    direction = "higher" if study.higher_is_better else "lower"
    lines.append(
        f"Reported is {study.primary} ({direction} is better) at the last step: the mean over seeds with its "
        f"95 % t interval, and the mean difference to {study.reference}, paired by seed."
    )
    return lines


def _tested(study: Study, comparison: Comparison) -> list[str]:
    """Say which tests stand behind the verdicts."""
    size = len(comparison.family)
    if not size:
        return ["Nothing is tested."]
    rows = f"{size} row{'s' if size > 1 else ''}"
    looks = f", times {study.looks} looks at the results" if study.looks > 1 else ""
    times = f" times {study.looks} looks" if study.looks > 1 else ""
    lines = [
        f"Differences are tested by two-sided paired t tests with Holm's correction over the family of {rows}"
        f"{looks} (corrected p <= .05), with joint sign flips as a distribution-free check."
    ]
    if study.smallest_effect:
        effect = number(study.smallest_effect, 6).rstrip("0").rstrip(".")
        lines.append(
            f"Equivalent means that the simultaneous 90 % t interval (Bonferroni over the family{times}) "
            f"lies within +-{effect}."
        )
    if any(line.arm != study.reference for line in imbalance_lines(study)):
        lines.append(
            "Whether a difference grows with imbalance is tested by its least squares slope on log10 "
            "imbalance, seed by seed, with paired t tests and Holm's correction over the slopes alone"
            f"{looks}."
        )
    return lines


def _outcome(study: Study, comparison: Comparison, interim: bool) -> list[str]:
    """Say how many confirm results there are, and how many were lost."""
    planned = study.seeds * len(comparison.rows)
    words = ("diverged", "failed", "not finite", NO_WINNER)
    lost = {word: sum(row.counts[word] for row in comparison.rows) for word in words}
    finished = sum(row.counts["finished"] for row in comparison.rows)
    parts = [f"{finished} finished", *(f"{count} {word}" for word, count in lost.items() if count)]
    same = [row for row in comparison.rows if row.identical_to]
    lines = [f"Of {planned} confirm results {'so far ' if interim else ''}{_joined(parts)}."]
    if same:
        lines.append(f"{_are(len(same), 'row', True)} identical to another bit for bit and not tested.")
    return lines


def _software(sources: Sources) -> list[str]:
    """Say with which software, code and devices, over all starts."""
    starts = Starts(sources.events)
    found = [payload.get("versions") or {} for payload in starts.payloads]
    known = {title: _each(versions.get(name) for versions in found) for name, title in _PACKAGES.items()}
    parts = [f"{title} {versions}" for title, versions in known.items() if versions]
    lines = [f"Software: {', '.join(parts)}."] if parts else []
    codes = [digest[:12] for digest in sources.facts.code_versions]
    lines += [f"Digest of the sarx training code: {_joined(codes)}."] if codes else []
    commits = _each(commit_text(place.get("git") or {}) for place in starts.places)
    lines += [f"Git commit: {commits}."] if commits else []
    devices = _joined(training_devices(sources))
    if devices:
        return [*lines, f"Confirm trials ran on {devices}."]
    driver = _each(devices_text(place.get("devices") or {}) for place in starts.places)
    return lines + ([f"The driver ran on a machine with {driver}."] if driver else [])


def _each(texts: Iterable[str | None]) -> str:
    """Return the different texts of all starts as ``a and b``."""
    return _joined([text for text in dict.fromkeys(texts) if text])


def _joined(parts: list[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _are(count: int, noun: str, now: bool) -> str:
    """Return ``1 arm is`` or ``9 arms are``, in the past unless ``now``."""
    verb = ("is" if count == 1 else "are") if now else ("was" if count == 1 else "were")
    return f"{count} {noun if count == 1 else noun + 's'} {verb}"


def _was(interim: bool) -> str:
    """Return ``is`` for what may still go on."""
    return "is" if interim else "was"


def _were(interim: bool) -> str:
    """Return ``are`` for what may still go on."""
    return "are" if interim else "were"
