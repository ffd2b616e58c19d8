"""Reading NDJSON: checksums, torn tails, bad lines, types."""

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from analysis.errors import UserError
from analysis.ledger import column_type, ledger_schema, line_problem, read_ledger
from sarx.study.ledger import Ledger, pack_metrics
from sarx.study.ledger_schema import COLUMNS

Begin = Callable[..., Any]


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
    read = read_ledger(writer.study).events["metrics"].drop_nulls()[0]
    assert {entry["name"]: entry["value"] for entry in read} == finite


@pytest.mark.parametrize("tail", ['{"v":1,"seq":9', '{"v":1,"seq":9,"crc":"00000000"}\n', "\x00\x00\n", "}"])
def test_a_torn_tail_is_left_out_and_named(new_ledger: Begin, tail: str) -> None:
    writer = new_ledger()
    writer.open()
    writer.raw(tail)
    ledger = read_ledger(writer.study)
    assert ledger.events.height == 1
    assert ledger.torn == ("00000.ndjson",)


def test_a_whole_line_without_newline_is_torn_too(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    writer.raw(writer.sealed({"v": 1, "seq": 2, "event": "stopping"}))
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
        UserError, match=rf"00000\.ndjson:2: a bad line in the middle of the ledger: {problem}"
    ):
        read_ledger(writer.study)


def test_a_flipped_digit_is_found(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.finish("t", {"test/miou": 0.25})
    writer.add("stopping", payload={})
    writer.file.write_text(writer.file.read_text().replace("0.25", "0.26"))
    with pytest.raises(UserError, match=r"00000\.ndjson:2: .*crc"):
        read_ledger(writer.study)


def test_a_line_of_other_types_is_an_error_with_file_and_line(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    writer.raw(writer.sealed({"v": 1, "seq": "two", "event": "stopping"}) + "\n")
    with pytest.raises(UserError, match=r"00000\.ndjson:2: does not fit the ledger's schema"):
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


def test_several_files_and_an_event_in_two_of_them(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    writer.add("stopping", payload={})
    lines = writer.file.read_text().splitlines(keepends=True)
    (writer.file.parent / "00000-compact.ndjson").write_text("".join(lines))
    writer.file.with_name("00001.ndjson").write_text(
        writer.sealed({"v": 1, "seq": 3, "event": "study_finished"}) + "\n"
    )
    assert read_ledger(writer.study).events["seq"].to_list() == [1, 2, 3]


def test_reads_what_the_driver_writes(new_ledger: Begin) -> None:
    study = new_ledger().study
    with Ledger(study / "ledger") as ledger:
        ledger.append("study_opened", payload=json.dumps({"question": 'a "crc":" \u00e4'}), level="")
        ledger.append("trial_finished", metrics=pack_metrics({"a": 0.1, "b": math.nan}), seed=2**63 - 1)
    events = read_ledger(study).events
    assert events["seed"][1] == 2**63 - 1
    assert [entry["nonfinite"] for entry in events["metrics"][1]] == [None, "nan"]


def test_line_problem_of_a_good_line(new_ledger: Begin) -> None:
    line = new_ledger().sealed({"v": 1, "payload": json.dumps({"crc": 'x","crc":"y'})})
    assert line_problem(line.encode()) == ""
