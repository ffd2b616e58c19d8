"""Studies as jobs: what is submitted, how jobs are told apart, and Slurm's queue (real ones: tests/ray)."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from sarx.cluster import jobs, resources, slurm, words
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


def test_a_cluster_that_grows_has_room_for_what_all_its_nodes_hold(monkeypatch):
    from sarx.study.schema import Resources

    wanted = Resources(num_workers=2, gpus_per_worker=1)
    monkeypatch.setattr(resources, "nodes", lambda: [{"CPU": 4.0}])
    assert resources.capacity(wanted) == 0
    assert not resources.grows()
    monkeypatch.setenv(resources.GROWS, '[{"nodes": 3, "CPU": 8, "GPU": 2}, {"nodes": 1, "CPU": 1}]')
    assert resources.grows()
    assert resources.capacity(wanted) == 3  # what all its nodes hold, so that it sees what waits
    assert resources.capacity(Resources(gpus_per_worker=4)) == 0
    monkeypatch.setattr(resources, "nodes", lambda: [{"CPU": 8.0, "GPU": 8.0}])
    assert resources.capacity(wanted) == 4
    for text in ("1", "[1]", '[{"CPU": 1}]', "{"):
        monkeypatch.setenv(resources.GROWS, text)
        with pytest.raises(UserError, match=r"SARX_CLUSTER_GROWS: .* is no list of kinds of nodes"):
            resources.grown()


def test_a_copy_knows_the_commit_that_it_was_made_from(tmp_path, monkeypatch):
    told = {"commit": "a" * 40, "dirty": True, "diff_sha256": "b" * 64, "diff": "x.patch"}
    monkeypatch.setenv(GIT_STATE, json.dumps(told))
    found = git_state(tmp_path)
    assert {key: found[key] for key in ("commit", "dirty", "diff_sha256", "diff")} == told | {"diff": None}
    assert "submitter" in found["reason"]
    for text in ("", "[]", '{"commit": "; rm"}', "{"):
        monkeypatch.setenv(GIT_STATE, text)
        assert git_state(tmp_path)["commit"] is None


class Client:
    """A job server whose one job is over after so many looks."""

    def __init__(self, looks):
        self.looks, self.asked = looks, []

    def list_jobs(self):
        return [Job("sarx-a-1", "RUNNING")]

    def stop_job(self, job):
        self.asked.append(job)

    def get_job_status(self, job):
        self.looks -= 1
        return "STOPPED" if self.looks < 0 else "RUNNING"


def test_a_job_is_stopped_when_it_is_over_and_not_before():
    quick = Client(1)
    assert jobs.stop(quick, "a")
    assert quick.asked == ["sarx-a-1"]
    assert not jobs.stop(Client(1), "b")
    with pytest.raises(UserError, match="sarx-a-1: was asked to stop and is not over after 0 s"):
        jobs.stop(Client(1000), "a", wait_s=0.01)


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
    folder = runs.parent.parent
    ours = f"7|RUNNING|sarx-a|{folder}\n9|PENDING|sarx-b|{folder}\n"
    listed.write_text(f"{ours}8|PENDING|o|th|er|{folder}\n5|RUNNING|sarx-a|{folder}-2\n")
    assert slurm.queue(site) == {"7": ("sarx-a", "RUNNING"), "9": ("sarx-b", "PENDING")}
    said = ["cluster slurm: 2 jobs wait or run", "  7 sarx-a: running", "  9 sarx-b: pending"]
    assert slurm.listed(site) == said


def test_the_log_of_a_study_is_that_of_no_other(queue, capsys):
    site, runs, listed = queue
    listed.write_text("")
    for name in ("sarx-foo-bar-8.out", "sarx-foo-7.out"):
        (runs / name).write_text(f"{name}\n")
        number = name.removesuffix(".out").rpartition("-")[2]
        (runs / number).mkdir(exist_ok=True)
        (runs / number / "exit-code").write_text("0\n")
    os.utime(runs / "sarx-foo-7.out", (1, 1))
    assert slurm.logs(site, "foo") == 0
    assert capsys.readouterr().out == "sarx-foo-7.out\n"
    assert slurm.logs(site, None) == 0
    assert capsys.readouterr().out == "sarx-foo-bar-8.out\n"
    with pytest.raises(UserError, match="no job of bar here"):
        slurm.logs(site, "bar")
    with pytest.raises(UserError, match="is no name of a study"):
        slurm.logs(site, "x; touch injected; echo ")
    assert not list(runs.parent.parent.rglob("injected"))


def test_a_board_on_the_login_host_ends_with_its_connection(queue):
    site, _, _ = queue
    command = slurm.shell(site, words.lasting(["sleep", "301"]))
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        time.sleep(0.3)
        assert process.poll() is None
        process.stdin.close()
        process.wait(10)
    assert not subprocess.run(["pgrep", "-fx", "sleep 301"], capture_output=True, check=False).stdout
    command = slurm.shell(site, words.lasting(["bash", "-c", "exit 3"]))
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # its end is seen
        assert process.wait(10) == 3


def test_a_study_that_is_another_one_on_the_login_host_is_refused(queue, tmp_path, monkeypatch):
    site, runs, _ = queue
    there, here = runs.parent.parent, tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text('#!/bin/bash\nexec bash -c "${@: -1}"\n')
    ssh.chmod(0o755)
    (there / "clusters" / "slurm").mkdir(parents=True)
    settings = there / "clusters" / "slurm" / "place.env"
    settings.write_text("SARX_STORAGE=/r\n")
    (here / "x.yaml").write_text("study: a\n")
    with pytest.raises(UserError, match=r"x\.yaml: is missing in .* on this machine; copy it there"):
        slurm.check_same(site, "x.yaml")
    site = Site("slurm", tmp_path, site.state, {**site.settings, "LOGIN_HOST": "far"})
    (here / "x.yaml").write_text("study: a\n")
    with pytest.raises(UserError, match=r"x\.yaml: is missing in .* on far; copy it there"):
        slurm.check_same(site, "x.yaml")
    (there / "x.yaml").write_text("study: b\n")
    with pytest.raises(UserError, match="is another file in"):
        slurm.check_same(site, "x.yaml")
    (there / "x.yaml").write_text("study: a\n")
    slurm.check_same(site, "x.yaml")
    settings.write_text("SARX_STORAGE=/elsewhere\n")
    with pytest.raises(UserError, match=r"SARX_STORAGE: is /elsewhere in .* on far"):
        slurm.check_same(site, "x.yaml")
    settings.write_text("SARX_STORAGE=/r\n")
    subprocess.run(["git", "init", "-q", str(there)], check=True)
    commit = ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run(["git", "-C", str(there), *commit], check=True)
    slurm.check_same(site, "x.yaml")  # nobody knows what commit this one is
    monkeypatch.setattr(slurm, "git_state", lambda _: {"commit": "f" * 40})
    with pytest.raises(UserError, match=r"is at commit [0-9a-f]{12}, this checkout at ffffffffffff"):
        slurm.check_same(site, "x.yaml")
