"""What a changed study costs, told at its start."""

from sarx.study.since import changes, describe_changes

OLD = {
    "objective": {"metric": "val/miou", "mode": "max"},
    "reference": "sar",
    "trials_per_arm": 8,
    "seeds": 5,
    "steps": 400,
    "plan": {"base": ["training=quick"], "seed": 0, "space": {"optim.lr": "[0.001, 0.1] log"}},
    "arms": [
        {"arm": "sar", "level": "", "overrides": {}, "parameters": ["optim.lr"]},
        {"arm": "plain", "level": "", "overrides": {"regularizer": "none"}, "parameters": ["optim.lr"]},
    ],
}


def test_the_first_start_and_an_equal_one_have_no_changes():
    assert changes(None, OLD) == []
    assert changes(OLD, OLD) == []
    newer = OLD | {"plan": OLD["plan"] | {"max_failures": 1}}  # an entry that older versions did not write
    assert changes(OLD, newer) == []


def test_changes_are_named_as_in_the_study_file():
    new = OLD | {
        "steps": 800,
        "seeds": 10,
        "plan": OLD["plan"]
        | {"base": ["training=quick", "training.steps=800"], "space": {"optim.lr": "[0.01, 0.1] log"}},
        "arms": [OLD["arms"][0] | {"overrides": {"loss": "ohem"}}, OLD["arms"][1] | {"arm": "other"}],
    }
    assert changes(OLD, new) == [
        "seeds 5 -> 10",
        "steps 400 -> 800",
        'plan.base ["training=quick"] -> ["training=quick", "training.steps=800"]',
        "plan.space.optim.lr [0.001, 0.1] log -> [0.01, 0.1] log",
        "arm sar changed",
        "arm plain removed",
        "arm other added",
    ]


def test_what_it_leaves_of_the_finished_trials():
    assert describe_changes([], 0, 0) == []
    assert describe_changes([], 7, 7) == []
    assert describe_changes(["seeds 5 -> 10"], 7, 7) == ["  changed since the last start: seeds 5 -> 10"]
    (line,) = describe_changes([], 7, 4)
    assert line.startswith("  3 of 7 finished trials are of another plan, code or winner")
    many = describe_changes([str(i) for i in range(12)], 0, 0)
    assert many[0].endswith("7; and 4 more")
