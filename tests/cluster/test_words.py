"""The words: what they refuse, and what they say of clusters that are not there or do not answer."""

from __future__ import annotations

import json

import pytest

from sarx.cluster import jobs, launcher, words
from sarx.cluster.local import unused_ports


def test_a_board_of_a_study_that_there_is_not_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SARX_STORAGE", str(tmp_path / "results"))
    (tmp_path / "results" / "sar-ablation").mkdir(parents=True)
    assert words.main(["tensorboard", "sar-ablatoin"]) == 2
    assert "no study 'sar-ablatoin' in" in (said := capsys.readouterr().err)
    assert "did you mean 'sar-ablation'?" in said


def test_a_place_that_there_is_not_is_refused(capsys):
    assert words.main(["up", "kuberays"]) == 2
    assert "did you mean 'kuberay'?" in capsys.readouterr().err
    assert words.main(["updown"]) == 2
    assert words.main(["job", "--place"]) == 2
    assert words.main(["job"]) == 2


def test_status_without_a_cluster_is_that_of_the_studies(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SARX_STORAGE", str(tmp_path / "results"))
    assert words.main(["status"]) == 0
    assert f"no study in {tmp_path / 'results'} yet" in capfd.readouterr().out
    assert words.main(["status", "unknown"]) == 2
    assert words.main(["down"]) == 0
    assert "no cluster of ours is up" in capfd.readouterr().out
    assert words.main(["job", "x.yaml"]) == 2
    assert words.main(["logs"]) == 2
    assert "start one with: just up" in capfd.readouterr().err


def test_the_words_own_options_stand_before_the_study():
    arguments = ["--place", "slurm", "--stop", "x.yaml", "--set", "a=1", "--stop"]
    assert words.own_options(arguments, "--stop") == ("slurm", True)
    assert arguments == ["x.yaml", "--set", "a=1", "--stop"]


def test_a_cluster_that_does_not_answer_is_one_message(tmp_path, monkeypatch, capfd):
    (port,) = unused_ports(1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".sarx").mkdir()
    (tmp_path / ".sarx" / "cluster.json").write_text(json.dumps({"ports": {"dashboard": port}}))
    (tmp_path / "x.yaml").write_text("study: x\n")
    (tmp_path / "results").mkdir()
    for arguments in (["job", "x.yaml"], ["job", "--stop", "x.yaml"], ["logs"], ["dashboard"]):
        assert words.main(arguments) == 2
        said = capfd.readouterr().err
        assert "Traceback" not in said
        assert "just down local, then just up local" in said
    (tmp_path / ".sarx" / "place").write_text("local\n")
    assert words.main(["status"]) == 0
    assert "cluster local: the cluster that just up local started does not answer" in capfd.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError("HTTP 500"), ConnectionError("reset")])
def test_what_a_job_server_does_wrong_is_one_message(error, tmp_path, monkeypatch, capfd):
    class Broken:
        def list_jobs(self):
            raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "open_client", lambda address: Broken())
    (tmp_path / ".sarx").mkdir()
    (tmp_path / ".sarx" / "cluster.json").write_text(json.dumps({"ports": {"dashboard": 1}}))
    (tmp_path / "x.yaml").write_text("study: x\n")
    for arguments in (["job", "x.yaml"], ["job", "--stop", "x.yaml"], ["logs"]):
        assert words.main(arguments) == 2
        assert f"does not answer ({error})" in capfd.readouterr().err


def test_a_cluster_whose_start_was_cut_off_is_still_known(checkout, capsys):
    launcher.record_name(words.find("aws")[1])
    assert words.current() == "aws"
    words.CURRENT.write_text("bare_metal\n")
    assert words.others("bare_metal") == ["aws"]
    assert words.main(["down"]) == 0
    assert (
        "aws: a cluster of ours may be up too; just status --place aws, just down aws"
        in capsys.readouterr().out
    )


def test_results_of_hosts_are_not_looked_for_on_a_machine_without_them(checkout, capsys):
    for word in ("status", "tensorboard"):
        assert words.main([word, "--place", "bare_metal"]) == 2
        said = "/x: no folder of this machine, where it is looked for while no cluster of bare_metal is up"
        assert said in capsys.readouterr().err
