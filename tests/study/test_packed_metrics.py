"""Metrics of a line that was read: a list that is made when it is looked at."""

import json
import zlib

import orjson
import pytest

from sarx.study.ledger_lines import PackedMetrics, decode, encode, pack_metrics, unpack_metrics

METRICS = {"val/miou": 0.5, 'odd }],"payload": name': float("nan"), "]": -1e-300, "val/iou/}]": 2.0}
EPOCH = {"v": 2, "seq": 3, "event": "epoch", "trial_id": "t", "epoch": 1, "metrics": pack_metrics(METRICS)}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"payload": json.dumps({"metrics": [{"a": "}]"}]})},
        {"parameters": [{"name": "optim.lr", "value": "0.1"}], "payload": "{}"},
        {"trial_id": '","metrics":[{}]'},
    ],
)
def test_a_line_is_read_as_json_reads_it(more):
    line = encode({**EPOCH, **more})
    event = decode(line)
    assert event == orjson.loads(line)
    assert list(event) == list(orjson.loads(line))
    assert repr(unpack_metrics(event["metrics"])) == repr(METRICS)


def test_an_event_of_metrics_alone_leaves_them_packed():
    event = decode(encode(EPOCH))
    packed = event["metrics"]
    assert isinstance(packed, PackedMetrics)
    assert packed == EPOCH["metrics"] == packed.plain()
    assert packed[0] == {"name": "val/miou", "value": 0.5}
    assert packed[1:] == EPOCH["metrics"][1:]
    assert len(packed) == len(METRICS)
    assert list(reversed(packed)) == list(reversed(EPOCH["metrics"]))
    assert packed == decode(encode(EPOCH))["metrics"]
    assert repr(packed) == repr(EPOCH["metrics"])
    assert bool(packed)


def test_no_metrics_are_an_empty_list():
    assert decode(encode({**EPOCH, "metrics": []}))["metrics"] == []


def test_a_flipped_byte_in_them_is_seen_when_the_line_is_read():
    line = encode(EPOCH).encode()
    damaged = line.replace(b"0.5", b"0.7", 1)
    with pytest.raises(ValueError, match="checksum mismatch"):
        decode(damaged)
    assert zlib.crc32(line) != zlib.crc32(damaged)
