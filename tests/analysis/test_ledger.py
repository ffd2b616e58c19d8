"""Reading NDJSON: checksums, torn tails, bad lines, types."""

import json
import math
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import polars as pl
import pytest

from analysis.errors import UserError
from analysis.ledger import column_type, ledger_schema, line_problem, read_ledger
from analysis.packed import begins_with, metric_values, unpacked, values_of
from sarx.study.compaction import compact
from sarx.study.ledger import Ledger as Driver
from sarx.study.ledger import encode, pack_metrics, read_events
from sarx.study.ledger_schema import COLUMNS

Begin = Callable[..., Any]
SAMPLES = Path(__file__).parents[1] / "fixtures" / "ledger"


def test_schema_is_derived_from_the_columns() -> None:
    schema = ledger_schema()
    assert list(schema) == list(COLUMNS)
    assert schema["seq"] == pl.Int64
    entry = pl.Struct({"name": pl.String, "value": pl.Float64, "nonfinite": pl.String})
    assert schema["metrics"] == pl.List(entry)
    with pytest.raises(ValueError, match="unknown column type 'complex'"):
        column_type("complex")


def test_reads_events_in_order_of_seq_with_null_columns(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    writer.add("stopping", payload={"reason": "SIGTERM"})
    events = read_ledger(writer.study).events
    assert events["event"].to_list() == ["study_opened", "stopping"]
    assert events["level"].to_list() == ["", ""]
    assert events["trial_id"].null_count() == 2


def test_floats_survive_bit_for_bit(new_ledger: Begin) -> None:
    rng = random.Random(0)
    values = [struct.unpack("d", struct.pack("Q", rng.getrandbits(64)))[0] for _ in range(2000)]
    finite = {str(number): value for number, value in enumerate(values) if math.isfinite(value)}
    writer = new_ledger()
    writer.finish("t", finite)
    events = read_ledger(writer.study).events
    assert dict(metric_values(events).select("metric", "value").iter_rows()) == finite
    assert all(values_of(events, name)["value"].to_list() == [finite[name]] for name in list(finite)[::50])


@pytest.mark.parametrize("tail", ['{"v":1,"seq":9', '{"v":1,"seq":9,"crc":"00000000"}\n', "\x00\x00\n", "}"])
def test_a_torn_tail_is_left_out_and_named(new_ledger: Begin, tail: str) -> None:
    writer = new_ledger()
    writer.open()
    writer.raw(tail)
    ledger = read_ledger(writer.study)
    assert ledger.events.height == 1
    assert ledger.torn == ("events.ndjson",)


def test_a_whole_line_without_newline_is_torn_too(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    writer.raw(writer.sealed({"v": 1, "seq": 1, "event": "stopping"}))
    assert read_ledger(writer.study).events.height == 1


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("{broken\n", "no crc"),
        ('{"v":1,"seq":9,"crc":"00000000"}\n', "its crc is '00000000'"),
        ('{"v":1,,"crc":"00000000"}\n', "not JSON"),
        ('[{"v":1,"crc":"00000000"}]\n', "not a JSON object"),
        ("\n", "no crc"),
    ],
)
def test_a_bad_line_in_the_middle_is_an_error_with_file_and_line(
    new_ledger: Begin, bad: str, problem: str
) -> None:
    writer = new_ledger()
    writer.open()
    writer.raw(bad)
    writer.add("stopping", payload={})
    with pytest.raises(
        UserError, match=rf"events\.ndjson:2: a bad line in the middle of the ledger: {problem}"
    ):
        read_ledger(writer.study)


def test_a_flipped_digit_is_found(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.finish("t", {"test/miou": 0.25})
    writer.add("stopping", payload={})
    writer.file.write_text(writer.file.read_text().replace("0.25", "0.26"))
    with pytest.raises(UserError, match=r"events\.ndjson:2: .*crc"):
        read_ledger(writer.study)


def test_a_line_of_other_types_is_an_error_with_file_and_line(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    writer.raw(writer.sealed({"v": 1, "seq": "two", "event": "stopping"}) + "\n")
    with pytest.raises(UserError, match=r"events\.ndjson:2: does not fit the ledger's schema"):
        read_ledger(writer.study)


def test_a_newer_ledger_is_refused(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.raw(writer.sealed({"v": 99, "seq": 1, "event": "study_opened"}) + "\n")
    with pytest.raises(UserError, match="has version 99"):
        read_ledger(writer.study)


def test_empty_ledgers(new_ledger: Begin) -> None:
    writer = new_ledger()
    with pytest.raises(UserError, match="no complete line yet"):
        read_ledger(writer.study)
    writer.raw('{"v":1')
    with pytest.raises(UserError, match="no complete line yet"):
        read_ledger(writer.study)


def write(folder: Path, name: str, fence: int, seqs: list[int], tail: str = "") -> None:
    """Write a file of a ledger; fence 0 is version 1."""
    folder.mkdir(parents=True, exist_ok=True)
    old = {"v": 2, "fence": fence} if fence else {"v": 1}
    lines = [encode({**old, "seq": seq, "time": fence / 8, "event": "stopping"}) for seq in seqs]
    (folder / name).write_text("".join(lines) + tail)


def test_files_are_read_in_the_order_of_their_fences_and_others_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    write(folder, "events.ndjson", 0, [0, 1], '{"v":1')
    write(folder, "events-000002.ndjson", 2, [2, 3, 4, 5], '{"v":2}\n')
    write(folder, "events-000003.ndjson", 3, [])
    write(folder, "events-000010.ndjson", 10, [4, 5])
    write(folder, "events-000011.ndjson", 11, [5])
    for name in (
        ".compacted-000011-000012.ndjson",
        "events-000012.ndjson.1",
        "events-12.ndjson",
        "copy.ndjson",
    ):
        write(folder, name, 12, [0])
    write(folder / "originals", "events-000099.ndjson", 99, [0])
    ledger = read_ledger(tmp_path)
    assert ledger.events.select("seq", "fence").rows() == [
        (0, None),
        (1, None),
        (2, 2),
        (3, 2),
        (4, 10),
        (5, 11),
    ]
    assert ledger.torn == ("events.ndjson", "events-000002.ndjson")
    write(folder, "compacted-000003.ndjson", 2, [0, 1, 2, 3])
    ledger = read_ledger(tmp_path)
    assert ledger.events["fence"].to_list() == [2, 2, 2, 2, 10, 11]
    assert ledger.torn == ()
    write(folder, "compacted-000010.ndjson", 3, [0, 1, 2, 3, 4])
    assert read_ledger(tmp_path).events["fence"].to_list() == [3, 3, 3, 3, 3, 11]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({1: [0, 1], 2: [3]}, r"events-000002\.ndjson:1: event 2 is missing"),
        ({1: [0], 2: [1], 3: [5]}, r"events-000003\.ndjson:1: events 2 to 4 are missing"),
        ({1: [0, 1, 3, 4]}, r"events-000001\.ndjson:3: event 2 is missing"),
        ({1: [0, 1, 1]}, r"events-000001\.ndjson:3: event 1 stands where event 2 is due"),
        ({1: [1]}, r"events-000001\.ndjson:1: event 0 is missing"),
    ],
)
def test_missing_events_are_named(tmp_path: Path, files: dict[int, list[int]], said: str) -> None:
    for fence, seqs in files.items():
        write(tmp_path / "ledger", f"events-{fence:06d}.ndjson", fence, seqs)
    with pytest.raises(UserError, match=said):
        read_ledger(tmp_path)


def test_an_event_of_another_fence_and_a_compacted_file_that_is_cut_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    write(folder, "events-000002.ndjson", 1, [0])
    with pytest.raises(UserError, match=r"events-000002\.ndjson:1: an event of fence 1 in a file of another"):
        read_ledger(tmp_path)
    write(folder, "compacted-000002.ndjson", 1, [0, 1])
    whole = (folder / "compacted-000002.ndjson").read_bytes()
    for cut in (1, 10):
        (folder / "compacted-000002.ndjson").write_bytes(whole[:-cut])
        with pytest.raises(UserError, match=r"compacted-000002\.ndjson:2: a bad line"):
            read_ledger(tmp_path)


def test_a_line_with_another_behind_it_is_damage_and_not_torn(tmp_path: Path) -> None:
    """The newline between the last two lines is gone: that cannot come from a write that was cut short."""
    write(tmp_path / "ledger", "events-000001.ndjson", 1, [0, 1, 2])
    path = tmp_path / "ledger" / "events-000001.ndjson"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:-1] + b"\x0b" + third)
    with pytest.raises(UserError, match=r"events-000001\.ndjson:2: a bad line"):
        read_ledger(tmp_path)
    path.write_bytes(first + second[:-1] + bytes(300))  # zeros, after a power cut
    assert read_ledger(tmp_path).events.height == 1


@pytest.mark.parametrize("seed", range(40))
def test_both_readers_agree_on_any_history_of_drivers(tmp_path: Path, seed: int) -> None:
    """Drivers are replaced without noticing and go on, die within a line, compact, write nothing."""
    rng = random.Random(seed)
    folder = tmp_path / "ledger"
    folder.mkdir()
    if rng.random() < 0.5:
        write(folder, "events.ndjson", 0, list(range(rng.randrange(4))), rng.choice(["", '{"v":1']))
    drivers: list[tuple[int, list[int], TextIO]] = []  # fence, next seq, file
    known: list[dict[str, Any]] = []
    for _ in range(rng.randrange(1, 30)):
        act = rng.random()
        if act < 0.3 or not drivers:
            ledger = Driver(folder)
            known = ledger.events
            drivers.append((ledger.fence, [len(known)], ledger.path.open("a")))
            ledger.close()
        elif act < 0.4:
            compact(folder, rng.randrange(1, 12))
        else:
            fence, seq, file = drivers[-1] if act < 0.8 else rng.choice(drivers)
            line = encode({"v": 2, "fence": fence, "seq": seq[0], "time": act, "event": "stopping"})
            torn = rng.random() < 0.1
            file.write(line[:20] if torn else line)
            file.flush()
            seq[0] += 1
            if torn:
                file.close()
                drivers.remove((fence, seq, file))
        events = read_events(folder)
        assert events[: len(known)] == known  # whatever drivers do that were replaced
        if events:
            expected = [(event["seq"], event.get("fence"), event["time"]) for event in events]
            assert read_ledger(tmp_path).events.select("seq", "fence", "time").rows() == expected
    for _, _, file in drivers:
        file.close()


@pytest.mark.parametrize(("sample", "name"), [("v1", "events.ndjson"), ("v2", "events-000001.ndjson")])
def test_stored_ledgers(tmp_path: Path, sample: str, name: str) -> None:
    (tmp_path / "ledger").mkdir()
    shutil.copy(SAMPLES / f"{sample}.ndjson", tmp_path / "ledger" / name)
    events = read_ledger(tmp_path).events
    assert events.height == {"v1": 12, "v2": 20}[sample]
    assert events["fence"].to_list() == [1 if sample == "v2" else None] * events.height
    finished = events.filter(pl.col("event") == "trial_finished")
    assert finished["trial_id"].to_list() == ["d50c3b5f818e9101", "1a3273db4a84cee5"]
    metrics = [dict(unpacked(packed)) for packed in finished["metrics"].to_list()]
    assert metrics[0]["val/miou"] == 0.3827189901087872
    assert metrics[1]["test/miou"] == 0.3106873060649119
    assert math.isnan(metrics[1]["geometry/semantic_anchors/mean_cosine"])
    proposed = events.filter(pl.col("event") == "proposed").row(0, named=True)
    assert proposed["seed"] == 7765066493325624491
    assert {"name": "optim.lr", "value": "0.0129128595477549"} in proposed["parameters"]
    if sample == "v2":
        repeated = pl.col("event").is_in(["promoted", "stopped", "selected"])
        assert events.filter(repeated)["repeat"].to_list() == [1, 1, 1]


def test_reads_what_the_driver_writes(new_ledger: Begin) -> None:
    study = new_ledger().study
    with Driver(study / "ledger") as ledger:
        ledger.append("study_opened", payload=json.dumps({"question": 'a "crc":" \u00e4'}), level="")
        ledger.append("trial_finished", metrics=pack_metrics({"a": 0.1, "b": math.nan}), seed=2**63 - 1)
    events = read_ledger(study).events
    assert events.select(begins_with("a")).to_series().to_list() == [None, True]
    assert events.select(begins_with("c")).to_series().to_list() == [None, False]
    assert events["seed"][1] == 2**63 - 1
    assert events["metrics"][0] is None
    (_, finite), (_, other) = unpacked(events["metrics"][1])
    assert finite == 0.1
    assert math.isnan(other)


def test_line_problem_of_a_good_line(new_ledger: Begin) -> None:
    line = new_ledger().sealed({"v": 1, "payload": json.dumps({"crc": 'x","crc":"y'})})
    assert line_problem(line.encode()) == ""
