"""Lines of a ledger taken apart: metrics anywhere, parts of any size, damage at every byte."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from analysis import ledger
from analysis.errors import UserError
from analysis.ledger import read_ledger
from analysis.packed import metric_values, unpacked, values_of
from sarx.study.ledger import encode, pack_metrics

Begin = Callable[..., Any]


def odd_lines(writer: Any) -> list[dict[str, float]]:
    """Write events whose metrics do not stand at the end of the line, or look like something else."""
    writer.open()
    found = [{"a]": 0.5, 'b",': 1.0}, {}, {"metrics": 2.0}, {"z": 3.0}, {"\u00e4": -1e-300}]
    for number, metrics in enumerate(found):
        packed = [{"name": name, "value": value} for name, value in metrics.items()]
        line: dict[str, Any] = {
            "v": 1,
            "seq": writer.seq,
            "event": "epoch",
            "epoch": number,
            "metrics": packed,
        }
        if number in (1, 3):
            line |= {
                "payload": '],"metrics":[{"name":"z"}]',
                "parameters": [{"name": "metrics", "value": "1"}],
            }
        writer.seq += 1
        writer.raw(writer.sealed(line) + "\n")
    writer.add("stopping", payload={"metrics": 'x,"metrics":[]'})
    return found


def test_metrics_anywhere_in_a_line_are_kept(new_ledger: Begin) -> None:
    writer = new_ledger()
    expected = odd_lines(writer)
    events = read_ledger(writer.study).events
    assert events["seq"].to_list() == list(range(len(expected) + 2))
    assert [dict(unpacked(packed)) for packed in events["metrics"].drop_nulls()] == expected
    assert events["parameters"].drop_nulls().to_list() == [[{"name": "metrics", "value": "1"}]] * 2
    assert json.loads(events["payload"][-1]) == {"metrics": 'x,"metrics":[]'}


@pytest.mark.parametrize("size", [1, 200, 700, 1 << 25])
def test_files_are_read_in_parts_of_any_size(
    new_ledger: Begin, whole_study: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    writer = new_ledger()
    whole_study(writer)
    odd_lines(writer)
    whole = read_ledger(writer.study).events
    monkeypatch.setattr(ledger, "_PART", size)
    monkeypatch.setattr(ledger, "_CHUNK", size)
    if size < 700:  # a part of each line or two: some hundred lines are enough
        writer.file.write_bytes(b"".join(writer.file.read_bytes().splitlines(keepends=True)[-100:]))
        monkeypatch.setattr(ledger, "_check_seq", lambda *_: None)
    assert_frame_equal(read_ledger(writer.study).events, whole[-100:] if size < 700 else whole)
    writer.raw(writer.sealed({"v": 1, "seq": "x", "event": "stopping"}) + "\n")
    lines = writer.file.read_bytes().count(b"\n")
    with pytest.raises(UserError, match=rf"events\.ndjson:{lines}: does not fit the ledger's schema"):
        read_ledger(writer.study)


def test_a_flipped_bit_anywhere_is_found_with_its_line(new_ledger: Begin) -> None:
    """Every byte of a ledger in turn; in the last line it is like a write that was cut short."""
    writer = new_ledger()
    for metrics in ({"a": 0.5}, {"b": 1.0, "c": 2.0}, {}):
        packed = [{"name": name, "value": value} for name, value in metrics.items()]
        line = {"v": 1, "seq": writer.seq, "metrics": packed, **({} if packed else {"payload": "{}"})}
        writer.raw(writer.sealed(line) + "\n")
        writer.seq += 1
    whole = writer.file.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        writer.file.write_bytes(damaged)
        line_number = whole.count(b"\n", 0, place) + 1
        if last <= place < len(whole) - 1:
            assert read_ledger(writer.study).events.height == line_number - 1
            continue
        with pytest.raises(UserError, match=rf"events\.ndjson:{line_number}: a bad line"):
            read_ledger(writer.study)


@pytest.mark.parametrize("size", [1, 300, 1 << 25])
def test_of_several_bad_lines_the_first_is_named(
    new_ledger: Begin, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Also where one is too short for a checksum, which is found out sooner than a wrong one."""
    writer = new_ledger()
    writer.open()
    for _ in range(20):
        writer.add("stopping")
    lines = writer.file.read_bytes().splitlines(keepends=True)
    monkeypatch.setattr(ledger, "_PART", size)
    monkeypatch.setattr(ledger, "_CHUNK", size)
    wrong = lines[8].replace(b"stopping", b"stopped!")
    for bad, first in (({8: wrong, 9: b"\n"}, 9), ({7: b"{}\n", 8: wrong}, 8), ({3: b"\n" * 999}, 4)):
        damaged = [bad.get(number, line) for number, line in enumerate(lines)]
        writer.file.write_bytes(b"".join(damaged))
        with pytest.raises(UserError, match=rf"events\.ndjson:{first}: a bad line"):
            read_ledger(writer.study)


def test_metrics_of_another_kind_are_named(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.raw(writer.sealed({"v": 1, "seq": 0, "event": "epoch", "metrics": [{"value": 0.5}]}) + "\n")
    events = read_ledger(writer.study).events
    with pytest.raises(UserError, match=r"metrics that do not fit its schema.*value"):
        metric_values(events)
    with pytest.raises(UserError, match="metrics that do not fit its schema"):
        values_of(events, "val/miou")


def test_metrics_of_another_kind_are_named_wherever_they_differ(new_ledger: Begin) -> None:
    for number, bad in enumerate(
        ({"name": 3, "value": 0.5}, {"name": "a", "value": "x"}, {"name": "a", "value": [1.0]})
    ):
        writer = new_ledger(f"study-{number}")
        lines = [{"name": "a", "value": 1}, {"name": "b", "value": None, "nonfinite": "-inf"}]
        for metrics in (lines, [], [{"name": "c", "value": 0.5}, bad]):
            line = {"v": 1, "seq": writer.seq, "event": "epoch", "metrics": metrics}
            writer.raw(writer.sealed(line) + "\n")
            writer.seq += 1
        events = read_ledger(writer.study).events
        found = metric_values(events[:2])
        assert found.select("metric", "value").rows() == [("a", 1.0), ("b", float("-inf"))]
        with pytest.raises(UserError, match="metrics that do not fit its schema"):
            metric_values(events)


def test_many_small_files_are_not_kept_open(tmp_path: Path) -> None:
    """A ledger on an object store has thousands of segments."""
    (tmp_path / "ledger").mkdir()
    metrics = pack_metrics({f"test/iou/class_{number}": 0.5 for number in range(200)})
    for number in range(40):
        events = [{"v": 2, "fence": 1, "seq": 3 * number + place, "metrics": metrics} for place in range(3)]
        segment = tmp_path / "ledger" / f"events-000001-{number:06d}.ndjson"
        segment.write_text("".join(map(encode, events)))
    before = len([*Path("/proc/self/fd").iterdir()])
    found = read_ledger(tmp_path)
    assert len([*Path("/proc/self/fd").iterdir()]) - before < 10
    assert found.events["metrics"].len() == 120
