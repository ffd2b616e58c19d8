"""Clusters that are one's own: in a cloud by their name, in Kubernetes by context and namespace."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest

from sarx.cluster import kuberay, launcher, words
from sarx.cluster.place import open_site
from sarx.cluster.places import PLACES
from sarx.config.errors import UserError


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_cloud_cluster_has_a_name_of_its_own_and_no_word_means_another(name, checkout, capsys):
    place, site = words.find(name)
    with pytest.raises(UserError, match=f"no cluster is up from this checkout; .*: just up {name}"):
        place.shell(site, "true")
    assert words.main(["down", name]) == 0
    assert "no cluster of ours is up" in capsys.readouterr().out
    launcher.record_name(site)
    called = launcher.recorded(site)
    assert re.fullmatch(r"sarx-[a-z0-9-]{1,16}-[0-9a-f]{4}", called)
    launcher.record_name(site)  # `just up` again looks after the one that runs
    assert launcher.recorded(site) == called
    for command in (place.shell(site, "true"), place.forward(site, 1, 2), launcher.down_command(site)):
        assert f"--cluster-name={called}" in command
    assert place.grows(site) == [{"nodes": 8, "CPU": 8, "GPU": 1}]


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_cloud_cluster_is_ended_by_the_file_that_it_was_started_from(name, checkout):
    site = open_site(name, PLACES[name].keys)
    launcher.record_name(site)
    launcher.keep_file(site)
    path = site.folder / "cluster.yaml"
    kept = path.read_text()
    path.write_text(kept.replace("max_workers: 8\nidle", "max_workers: 4\nidle"))
    assert Path(launcher.down_command(site)[-1]).read_text() == kept
    launcher.keep_file(site)  # `just up` again takes the change along
    path.write_text(path.read_text().replace("region: /x", "region: elsewhere"))
    with pytest.raises(UserError, match=rf"provider: is not that of sarx-.*; first: just down {name}"):
        launcher.keep_file(site)
    assert "elsewhere" not in Path(launcher.down_command(site)[-1]).read_text()


def test_a_cloud_cluster_that_is_not_found_stays_recorded(checkout, monkeypatch, capsys):
    from ray.autoscaler._private import commands

    assert 'Head node of cluster ({}) not found!"' in inspect.getsource(commands)
    site = open_site("aws", PLACES["aws"].keys)
    launcher.record_name(site)
    launcher.keep_file(site)
    monkeypatch.setattr(launcher, "check_library", lambda site: None)
    said = ["echo", f"Head node of cluster ({launcher.recorded(site)}) not found!"]
    monkeypatch.setattr(launcher, "down_command", lambda site: said)
    assert words.main(["down", "aws"]) == 1
    assert "nothing was ended: with the credentials that are set now" in capsys.readouterr().out
    assert launcher.record_of(site).exists()
    monkeypatch.setattr(launcher, "down_command", lambda site: ["false"])
    assert words.main(["down", "aws"]) == 1
    assert launcher.record_of(site).exists()
    monkeypatch.setattr(launcher, "down_command", lambda site: ["true"])
    assert words.main(["down", "aws"]) == 0
    assert not list(site.state.glob("cluster*"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cluster_name: sarx ", "cluster_name: Our_Cluster ", "cluster_name: must be up to 16 of a-z"),
        ('resources: {"CPU": 8, "GPU": 1}', "resources: {}", "gpu.resources: say how many CPUs and GPUs"),
        ("max_workers: 8\nidle", "max_workers: [\nidle", "cannot be read"),
    ],
)
def test_what_a_cloud_file_must_say_is_asked_for(checkout, old, new, said):
    path = Path("clusters/aws/cluster.yaml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=said):
        launcher.kinds(open_site("aws", PLACES["aws"].keys))


KUBECTL = """#!/bin/bash
echo "$@" >> {log}
case "$*" in
    *current-context) echo mine ;;
    *fail*) echo 'E1129 08:00:00 1 memcache.go:265] "x"' >&2; echo 'refused: no route' >&2; exit 1 ;;
    *"get raycluster"*) cat {there} ;;
    *"get pods"*) echo head-1 ;;
    *"get rayjob"*) cat {jobs} ;;
esac
"""


def test_a_kubernetes_cluster_is_that_of_this_checkout(checkout, monkeypatch, capsys):
    log, there, folder, jobs = (checkout / name for name in ("log", "there", "bin", "jobs"))
    jobs.write_text("")
    folder.mkdir()
    (folder / "kubectl").write_text(KUBECTL.format(log=log, there=there, jobs=jobs))
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    there.write_text("raycluster.ray.io/sarx\n")
    settings = Path("clusters/kuberay/place.env")
    settings.write_text(settings.read_text().replace("NAMESPACE=/x", "NAMESPACE=team"))
    assert words.main(["up", "kuberay"]) == 2
    assert "namespace team has a cluster sarx not started from this checkout" in capsys.readouterr().err
    assert words.main(["down", "kuberay"]) == 0
    assert "no cluster of ours is up" in capsys.readouterr().out
    assert "apply" not in log.read_text()
    assert "delete" not in log.read_text()
    there.write_text("")
    assert words.main(["up", "kuberay"]) == 0
    applied = [line for line in log.read_text().splitlines() if " apply " in line]
    assert len(applied) == 4
    assert all(line.startswith("--context=mine --namespace=team ") for line in applied)
    settings.write_text(settings.read_text().replace("NAMESPACE=team", "NAMESPACE=other"))
    place, site = words.find("kuberay")
    assert place.shell(site, "true")[:3] == ["kubectl", "--context=mine", "--namespace=team"]
    assert words.main(["up", "kuberay"]) == 2
    assert "the cluster of this checkout is in namespace team of mine" in capsys.readouterr().err
    jobs.write_text("done=Complete\nmine=Running\n")
    assert words.main(["down"]) == 0
    assert "token and network policy stay for rayjob/mine" in capsys.readouterr().out
    assert "secret" not in log.read_text().splitlines()[-1]
    jobs.write_text("done=Complete\nmine=Failed\n")
    assert words.main(["down", "kuberay"]) == 0
    assert "secret/sarx-token" in log.read_text().splitlines()[-1]
    said = capsys.readouterr().out
    assert "kubectl --context=mine --namespace=team delete -f clusters/kuberay/storage.yaml" in said
    with pytest.raises(UserError, match="no cluster is up from this checkout"):
        kuberay.kubectl(site)
    with pytest.raises(UserError, match=r"^kubectl: refused: no route$"):
        kuberay.ask(["kubectl", "fail"])


def test_pods_hold_what_kuberay_tells_ray_that_they_do(checkout):
    assert PLACES["kuberay"].grows(open_site("kuberay", PLACES["kuberay"].keys)) == [
        {"nodes": 8, "CPU": 8, "GPU": 1}
    ]
    assert [kuberay.cores(text) for text in ("8", "500m", "1500m", "0.5", "2.0")] == [8, 1, 2, 1, 2]
    group = {"groupName": "a", "maxReplicas": 2, "template": {"spec": {"containers": [{}]}}}
    with pytest.raises(UserError, match="how many CPUs a pod of group a has"):
        kuberay.kinds_of({"workerGroupSpecs": [group]}, "x")
