"""Studies as jobs: what is submitted, how jobs are told apart, and Slurm's queue (real ones: tests/ray)."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from sarx.cluster import jobs, resources, slurm
from sarx.cluster.place import Site
from sarx.config.errors import UserError
from sarx.study.provenance import GIT_STATE, git_state


class Job:
    def __init__(self, submission_id, status="SUCCEEDED", start_time=0, code=0):
        self.submission_id, self.status, self.start_time = submission_id, status, start_time
        self.driver_exit_code, self.message = code, ""


def test_jobs_are_told_apart_by_study_and_number():
    known = ["sarx-a-9", "sarx-a-10", "sarx-a-1-2", "raysubmit_x", None, "sarx-a-01"]
    found = [Job(name, start_time=number) for number, name in enumerate(known)]
    assert [job.submission_id for job in jobs.of_study(found, "a")] == ["sarx-a-9", "sarx-a-10"]
    assert [job.submission_id for job in jobs.of_study(found, "a-1")] == ["sarx-a-1-2"]
    assert jobs.newest(found, "a") == "sarx-a-10"
    assert jobs.newest(found, None) == "sarx-a-1-2"
    assert jobs.newest(found, "b") is None
    assert len(jobs.describe(found)) == 3


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", -15, 130)],
)
def test_the_exit_code_is_that_of_the_study(state, code, expected):
    assert jobs.exit_code_of(state, Job("sarx-a-1", state, code=code)) == expected


def test_the_study_names_the_job_and_lies_in_what_goes_along(tmp_path):
    study = tmp_path / "x.yaml"
    study.write_text("study: my-study\n")
    assert jobs.study_name(study) == "my-study"
    assert jobs.inside(study, tmp_path) == "x.yaml"
    with pytest.raises(UserError, match="lies outside"):
        jobs.inside(study, tmp_path / "elsewhere")
    for text in ("study: [1]\n", "- 1\n", "study: 'A b'\n", "a: [\n"):
        study.write_text(text)
        with pytest.raises(UserError, match=r"names no study|cannot be read"):
            jobs.study_name(study)
    command = jobs.entrypoint(
        "a b.yaml", "--set", "x=$(id)", "y=2", "--phase", "confirm", "--plugin", "my.parts"
    )
    script = f"python() {{ printf '%s\\n' \"$@\"; }}; {command.replace('exec ', '')}"
    asked = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    look, tune = "-m sarx.cluster.check", "-m sarx.tune"
    assert asked.stdout.splitlines() == [
        *look.split(), "a b.yaml", "--set", "x=$(id)", "y=2", "--plugin=my.parts",
        *tune.split(), "a b.yaml", "--set", "x=$(id)", "y=2", "--phase", "confirm", "--plugin", "my.parts",
    ]  # fmt: skip


def test_results_of_a_job_never_lie_in_the_copy_that_goes_along(tmp_path):
    along = jobs.runtime_env(tmp_path, "/shared/results", {"A": "1"})
    assert along["working_dir"] == str(tmp_path)
    assert {"/.git", "/.venv", "/.sarx", "/results"} <= {*along["excludes"]}
    assert (
        along["env_vars"].items()
        >= {"SARX_STORAGE": "/shared/results", "A": "1", "RAY_AUTH_MODE": "token"}.items()
    )
    assert "working_dir" not in jobs.runtime_env(None, "/shared/results", {})


def test_a_cluster_that_grows_has_room_for_a_trial(monkeypatch):
    from sarx.study.schema import Resources

    wanted = Resources(num_workers=2, gpus_per_worker=1)
    monkeypatch.setattr(resources, "nodes", lambda: [{"CPU": 4.0}])
    assert resources.capacity(wanted) == 0
    monkeypatch.setenv(resources.GROWS, "1")
    assert resources.capacity(wanted) == 1
    monkeypatch.setattr(resources, "nodes", lambda: [{"CPU": 8.0, "GPU": 4.0}])
    assert resources.capacity(wanted) == 2


def test_a_copy_knows_the_commit_that_it_was_made_from(tmp_path, monkeypatch):
    told = {"commit": "a" * 40, "dirty": True, "diff_sha256": "b" * 64, "diff": "x.patch"}
    monkeypatch.setenv(GIT_STATE, json.dumps(told))
    found = git_state(tmp_path)
    assert {key: found[key] for key in ("commit", "dirty", "diff_sha256", "diff")} == told | {"diff": None}
    assert "submitter" in found["reason"]
    for text in ("", "[]", '{"commit": "; rm"}', "{"):
        monkeypatch.setenv(GIT_STATE, text)
        assert git_state(tmp_path)["commit"] is None


# ------------------------------------------------------------ Slurm, with stand-ins for its commands


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A login host whose squeue prints queue.txt; the shell commands are the real ones."""
    folder = tmp_path / "folder"
    (folder / ".sarx" / "slurm" / "7").mkdir(parents=True)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "squeue").write_text(
        f"#!/bin/bash\n[ -s {tmp_path}/queue.txt ] && cat {tmp_path}/queue.txt; true\n"
    )
    (commands / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "PAUSE_S", 0.01)
    settings = {"LOGIN_HOST": "", "SSH_OPTIONS": "", "SARX_FOLDER": str(folder), "SARX_STORAGE": "/r"}
    return (
        Site("slurm", tmp_path, tmp_path / "state", settings),
        folder / ".sarx" / "slurm",
        tmp_path / "queue.txt",
    )


def test_a_slurm_that_does_not_answer_is_no_end_of_a_job(queue, monkeypatch, tmp_path, capsys):
    site, runs, _ = queue
    (runs / "sarx-a-7.out").write_text("one\n")
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text("#!/bin/bash\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    monkeypatch.setattr(slurm, "PATIENCE_S", 0.1)
    with pytest.raises(UserError, match="lost: Unable to contact slurm controller; attach again"):
        slurm.follow(site, "7", "sarx-a")
    squeue.write_text("#!/bin/bash\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n")
    (runs / "7" / "exit-code").write_text("0\n")
    assert slurm.follow(site, "7", "sarx-a") == 0
    assert capsys.readouterr().out == "one\n"


def test_the_output_of_a_slurm_job_is_followed_to_its_exit_code(queue, capsys):
    site, runs, listed = queue
    (runs / "sarx-a-7.out").write_text("one\ntwo\n")
    (runs / "7" / "exit-code").write_text("1\n")
    listed.write_text("")
    assert slurm.follow(site, "7", "sarx-a") == 1
    assert capsys.readouterr().out == "one\ntwo\n"
    (runs / "7" / "exit-code").unlink()
    assert slurm.logs(site, None) == 1
    assert "left no exit code" in capsys.readouterr().out
    listed.write_text("7|RUNNING|sarx-a\n8|PENDING|o|th|er\n")
    assert slurm.queue(site) == {"7": ("sarx-a", "RUNNING"), "8": ("o|th|er", "PENDING")}
    assert slurm.listed(site) == ["cluster slurm: 1 jobs wait or run", "  7 sarx-a: running"]
