"""What looks at nodes say: each fault is named with its node and a cure, and nothing else is."""

from __future__ import annotations

import pytest

from sarx.cluster.check import meeting_places, missing_token
from sarx.cluster.findings import FAILED, OK, WARNING, judge
from sarx.study.schema import Resources

GOOD = {
    "host": "a",
    "versions": {"python": "3.11.2", "torch": "2.15.0", "ray": "2.60.0"},
    "code": {"models/fcn.py": "1", "losses/ohem.py": "2"},
    "no_sarx": "",
    "gpus": 2,
    "unwritable": "",
    "unshared": False,
    "free_gib": 100.0,
    "no_data": [],
    "skew_s": 0.01,
    "error_s": 0.02,
}


def states(findings):
    return {finding.check: finding.state for finding in findings}


def test_nodes_without_fault_give_a_line_per_check():
    findings = judge(GOOD, {"a": GOOD, "b": GOOD}, {"a": 2.0, "b": 2.0}, "/results")
    assert states(findings) == dict.fromkeys(("nodes", "sarx", "versions", "GPUs", "storage", "clocks"), OK)
    assert len(findings) == 6
    assert not any(finding.cure for finding in findings)


@pytest.mark.parametrize(
    ("change", "check", "state", "said"),
    [
        ({"no_sarx": "No module named 'sarx'", "code": {}}, "sarx", FAILED, "No module named 'sarx'"),
        ({"code": {"models/fcn.py": "9", "losses/ohem.py": "2"}}, "sarx", FAILED, "here (models/fcn.py)"),
        (
            {"versions": {**GOOD["versions"], "torch": "2.14.0"}},
            "versions",
            FAILED,
            "torch 2.14.0 (here 2.15.0)",
        ),
        ({"versions": {"python": "3.11.2", "torch": "2.15.0"}}, "versions", FAILED, "ray none (here 2.60.0)"),
        ({"gpus": 1}, "GPUs", FAILED, "Ray hands out 2, torch sees 1"),
        ({"unwritable": "Read-only file system"}, "storage", FAILED, "Read-only file system"),
        ({"unshared": True}, "storage", FAILED, "another folder than here"),
        ({"free_gib": 1.25}, "storage", WARNING, "1.2 GiB free"),
        ({"no_data": ["/data/cityscapes"]}, "data", FAILED, "/data/cityscapes"),
        ({"skew_s": -3.0}, "clocks", WARNING, "-3.0 s"),
        ({"skew_s": 30.0}, "clocks", FAILED, "+30.0 s"),
    ],
)
def test_a_fault_of_one_node_is_named_once_with_a_cure(change, check, state, said):
    findings = judge(GOOD, {"good": GOOD, "bad": GOOD | change}, {"good": 2.0, "bad": 2.0}, "/results")
    (bad,) = [finding for finding in findings if finding.state != OK]
    assert (bad.check, bad.state) == (check, state)
    assert said in bad.found
    assert "good" not in bad.found
    assert (check == "storage" and state == WARNING) or "bad" in bad.found
    assert bad.cure


def test_a_clock_that_may_be_right_is_not_blamed():
    slow = GOOD | {"skew_s": 2.5, "error_s": 2.0}
    assert states(judge(GOOD, {"a": slow}, {"a": 0.0}, ""))["clocks"] == OK


def test_a_node_that_does_not_answer_is_named_and_the_others_judged():
    findings = judge(GOOD, {"a": GOOD, "gone": "no answer within 90 s"}, {"a": 0.0, "gone": 8.0}, "/results")
    assert [f.found for f in findings if f.state == FAILED] == ["gone: no answer within 90 s"]


def test_a_missing_token_is_found_before_the_cluster_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    file = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    lacking = missing_token()
    assert lacking is not None
    assert lacking.state == FAILED
    assert str(file) in lacking.found
    assert "RAY_AUTH_TOKEN_PATH" in lacking.cure
    file.write_text("")
    assert missing_token() is not None
    file.write_text("secret")
    assert missing_token() is None
    file.unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert missing_token() is None


@pytest.mark.parametrize(
    ("gpus", "resources", "expected"),
    [
        ({"head": 0.0, "a": 0.0}, {}, ["1", "2"]),
        ({"head": 0.0}, {}, []),
        ({"head": 0.0}, {"num_workers": 2}, ["1", "1"]),
        ({"head": 0.0, "a": 4.0, "b": 4.0}, {"gpus_per_worker": 1.0}, ["2", "3"]),
        ({"head": 0.0, "a": 4.0}, {"num_workers": 2, "gpus_per_worker": 1.0}, ["2", "2"]),
        ({"head": 0.0, "a": 1.0}, {"num_workers": 2, "gpus_per_worker": 1.0}, []),
    ],
)
def test_workers_meet_on_nodes_that_can_hold_them(gpus, resources, expected):
    usable = {name: str(number) for number, name in enumerate(gpus, start=1)}
    assert meeting_places(usable, gpus, Resources(**resources)) == expected
