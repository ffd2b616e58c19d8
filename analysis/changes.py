"""What changed between two starts of a study, in sentences, and how many of the changes count as looks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from analysis.search_plan import without_defaults

Payload = dict[str, Any]

# What a reader of the table must know if it changed between two starts; True: the change, made after
# results were on the table, counts as another look at them (protocol 11).
_WATCHED = {
    "question": False,
    "objective": True,
    "report": True,
    "reference": True,
    "arms": False,
    "trials_per_arm": True,
    "seeds": True,
    "looks": True,
    "steps": True,
    "selection": True,
    "plan": True,
    "cited": False,  # others' numbers: nothing that is measured changes
}
_WORDS = ("question", "cited")
_ABSENT_IN_OLD_LEDGERS = ("plan",)


class Changes(NamedTuple):
    """What changed between two starts.

    Attributes:
        sentences: one for each change.
        late: those of changes made after confirm results were known, but for changes of words alone.
        looks: the number of each start that counts as a look, with its ``seq``.
    """

    sentences: tuple[str, ...]
    late: tuple[str, ...]
    looks: dict[int, int]


def changes_and_looks(payloads: Sequence[Payload], seqs: Sequence[int], first_result: int | None) -> Changes:
    """Return what changed between two starts, and which of them count as looks.

    Args:
        payloads: of the ``study_opened`` events, in order.
        seqs: their ``seq``.
        first_result: ``seq`` of the first finished confirm trial; None without any.
    """
    changes: list[str] = []
    late: list[str] = []
    looks: dict[int, int] = {}
    payloads = [_cited_apart(without_defaults(payload)) for payload in payloads]
    for number, (before, after, seq) in enumerate(
        zip(payloads, payloads[1:], seqs[1:], strict=False), start=2
    ):
        changed = [key for key in _WATCHED if _differs(key, before, after)]
        known = first_result is not None and first_result < seq
        again = _code_change(before, after)
        retried = again != "" or any(_WATCHED[key] for key in changed) or _reconsidered(before, after)
        looks |= {number: seq} if known and retried else {}
        when = "after confirm results were known" if known else "before any confirm result"
        sentences = {key: _change(key, before, after) for key in changed}
        if again:
            sentences["code"] = again
        changes += [f"start {number}, {when}: {sentence}" for sentence in sentences.values()]
        if known:
            late += [f"start {number}, {text}" for key, text in sentences.items() if key not in _WORDS]
        kept = _code(after).get("kept") or []
        if kept:
            changes.append(
                f"start {number}: the training code had changed ({', '.join(kept)}) and trials were kept"
            )
    return Changes(tuple(changes), tuple(late), looks)


def planned_looks(payloads: Sequence[Payload], seqs: Sequence[int], first_result: int | None) -> int:
    """Return how many looks were planned: the most of any plan that was in force while results were known.

    Args:
        payloads: of the ``study_opened`` events, in order.
        seqs: their ``seq``.
        first_result: ``seq`` of the first finished confirm trial; None without any.
    """
    ends = [*seqs[1:], None]
    counted = [
        payload
        for payload, end in zip(payloads, ends, strict=True)
        if end is None or (first_result is not None and first_result < end)
    ]
    return max(len(payload.get("looks") or ()) for payload in counted)


def _cited_apart(payload: Payload) -> Payload:
    """Return an opening with the cited rows beside its report, where their changes count otherwise."""
    report = dict(payload.get("report") or {})
    cited = report.pop("cited", None) or []
    return {**payload, "report": report, "cited": cited}


def _reconsidered(before: Payload, after: Payload) -> bool:
    """Return whether an arm that was there is gone or is another one now.

    Taking rows out makes the family smaller, and changing one until it wins is a second try; an added arm
    makes the family larger and costs nothing.
    """
    rows = [
        {(row["arm"], row.get("level") or ""): row for row in payload["arms"]} for payload in (before, after)
    ]
    parts = ("overrides", "parameters", "takes")
    for key, row in rows[0].items():
        other = rows[1].get(key)
        if other is None or any((row.get(part) or None) != (other.get(part) or None) for part in parts):
            return True
    return False


def _differs(key: str, before: Payload, after: Payload) -> bool:
    """Return whether a watched entry changed; one that an old ledger could not have did not."""
    if key == "seeds" and _by_plan(before, after):
        return False
    if key in _ABSENT_IN_OLD_LEDGERS and None in (before.get(key), after.get(key)):
        return False
    return bool(before.get(key) != after.get(key))


def _by_plan(before: Payload, after: Payload) -> bool:
    """Return whether the study went on to a number of seeds that was said up front."""
    looks = before.get("looks") or ()
    rising = before["seeds"] <= after["seeds"]
    return rising and looks == (after.get("looks") or ()) and {before["seeds"], after["seeds"]} <= set(looks)


def _change(key: str, before: Payload, after: Payload) -> str:
    """Return one sentence on what changed: both values, or the parts that came, went or changed."""
    old, new = before.get(key), after.get(key)
    if key == "plan" and isinstance(old, dict) and isinstance(new, dict):
        return f"plan: {'; '.join(_plan_parts(old, new))}"
    if key == "cited":
        return f"cited rows: {'; '.join(_cited_parts(before, after))}"
    if key != "arms":
        return f"{key} {_short(old)} -> {_short(new)}"
    names = [{(row["arm"], row.get("level") or "") for row in payload["arms"]} for payload in (before, after)]
    added = sorted({arm for arm, _ in names[1] - names[0]})
    removed = sorted({arm for arm, _ in names[0] - names[1]})
    parts = [f"{word} {', '.join(arms)}" for word, arms in (("added", added), ("removed", removed)) if arms]
    return f"arms: {'; '.join(parts) or 'overrides or parameters changed'}"


def _cited_parts(before: Payload, after: Payload) -> list[str]:
    """Return which cited rows came, went or changed, by name."""
    old, new = ({(row["name"], row.get("setting")): row for row in p["cited"]} for p in (before, after))
    found = {
        "added": [key for key in new if key not in old],
        "removed": [key for key in old if key not in new],
        "changed": [key for key in new if key in old and new[key] != old[key]],
    }
    parts = [f"{word} {', '.join(name for name, _ in keys)}" for word, keys in found.items() if keys]
    return parts or ["reordered"]


def _plan_parts(old: Payload, new: Payload) -> list[str]:
    """Return what changed in the plan, part by part: ``seed 0 -> 1``, ``space added optim.lr 0.1 .. 1``."""
    parts: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name), new.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            parts += [
                _moved(f"{name} {key}", one.get(key), other.get(key))
                for key in dict.fromkeys([*one, *other])
                if one.get(key) != other.get(key)
            ]
        elif isinstance(one, list) and isinstance(other, list):
            gone = ", ".join(str(text) for text in one if text not in other)
            come = ", ".join(str(text) for text in other if text not in one)
            parts.append(_moved(name, gone or None, come or None) if gone or come else f"{name} reordered")
        else:
            parts.append(_moved(name, one, other))
    return parts


def _moved(name: str, old: object, new: object) -> str:
    """Return ``name old -> new``, ``name added new`` or ``name removed old``."""
    if old is None:
        return f"{name}: added {_plain(new)}"
    return f"{name}: removed {_plain(old)}" if new is None else f"{name} {_plain(old)} -> {_plain(new)}"


def _code_change(before: Payload, after: Payload) -> str:
    """Say that the code which identifies trials changed, so that no earlier one counts any more; else ''.

    Training all arms again with other code is a second draw, whatever the reason for the change.
    """
    old, new = _code(before), _code(after)
    if not (old.get("digest") and new.get("digest")) or old["digest"] == new["digest"]:
        return ""
    files = [code.get("files") or {} for code in (old, new)]
    count = sum(files[0].get(path) != files[1].get(path) for path in {*files[0], *files[1]})
    number = f" ({count} file{'s' if count > 1 else ''})" if count else ""
    return f"training code changed{number}, everything trained again"


def _code(payload: Payload) -> Payload:
    """Return what a start says about its code."""
    return payload.get("code") or {}


def _plain(value: object) -> str:
    """Return a text as it is, anything else as short JSON."""
    return value if isinstance(value, str) else _short(value)


def _short(value: object) -> str:
    """Return a value as short JSON."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
