"""The files of clusters/, each against its schema, linter or API, and all against constraints.txt."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sarx.cluster import jobs, kuberay, launcher, node
from sarx.cluster.place import MARKED, Site
from sarx.cluster.places import PLACES

CLUSTERS = Path("clusters")
BIN = Path(sys.executable).parent
FIELDS = Path("tests/fixtures/kuberay/fields.txt")
PINS = dict(line.split("==") for line in Path("constraints.txt").read_text().split() if "==" in line)
WORDS = ["Needs", "Fill in", "Up", "Job", "Down"]


def load(name):
    return yaml.safe_load((CLUSTERS / name).read_text(encoding="utf-8"))


# ------------------------------------------------------------ every place


@pytest.mark.parametrize("place", PLACES)
def test_a_place_says_what_it_needs_and_its_marked_values_are_looked_for(place):
    folder = CLUSTERS / place
    text = (folder / "README.md").read_text(encoding="utf-8")
    if place != "local":
        assert re.findall(r"^- \*\*([^*]+)\*\*: \S", text, re.M) == WORDS
    recipes = set(re.findall(r"^([a-z][\w-]*)[^:=\n]*:(?!=)", Path("Justfile").read_text(), re.M))
    assert set(re.findall(r"`just ([a-z][\w-]*)", text)) <= recipes
    marked = {path.name for path in folder.iterdir() if MARKED.search(path.read_text(encoding="utf-8"))}
    optional = {"rayjob.yaml"}  # not of `just up`; kubectl refuses its image name as it stands
    assert marked <= {*PLACES[place].files} | optional
    for name in PLACES[place].files:
        assert (folder / name).exists()


def test_ray_stop_is_nowhere():
    for folder in (CLUSTERS, Path("sarx"), Path("Justfile")):
        for path in [folder] if folder.is_file() else folder.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert not re.search(r"\bray[\"', ]+stop\b", path.read_text(encoding="utf-8")), path


# ------------------------------------------------------------ versions


def drift(text: str, pins: dict[str, str], python: str) -> list[str]:
    """Return what a text says of a version that is not the pinned one."""
    said = [("ray", version) for version in re.findall(r"ray[:=v]*(\d+\.\d+\.\d+)", text)]
    said += [("ray", version) for version in re.findall(r"rayVersion: \"?([\d.]+)", text)]
    said += [("torch", version) for version in re.findall(r"torch[:=]*(\d+\.\d+\.\d+)", text)]
    wrong = [f"{name} {version}" for name, version in said if version != pins[name]]
    return wrong + [f"python {found}" for found in re.findall(r"python:?(\d+\.\d+)", text) if found != python]


def test_versions_are_those_of_the_constraints():
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    python = project["tool"]["mypy"]["python_version"]
    assert python == project["project"]["requires-python"].removeprefix(">=")
    seen = 0
    for path in CLUSTERS.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not drift(text, PINS, python), path
            seen += PINS["ray"] in text
    assert seen >= 5  # image, two clouds, two kinds of Kubernetes
    text = (CLUSTERS / "Containerfile").read_text(encoding="utf-8")
    assert f"FROM python:{python}-" in text
    assert "--constraint constraints.txt" in text
    assert "NVIDIA_VISIBLE_DEVICES=all" in text  # without it NVIDIA's runtime shows no GPU
    assert drift(text, PINS | {"ray": "2.61.0"}, python) == ["ray 2.60.0"] * text.count("ray2.60.0")
    assert drift(text, PINS, "3.12") == ["python 3.11"]
    launcher = (CLUSTERS / "launcher.txt").read_text(encoding="utf-8")
    pinned = dict(line.split("==") for line in launcher.splitlines() if not line.startswith("#"))
    assert {name: PINS.get(name, version) for name, version in pinned.items()} == pinned
    images = re.findall(r"sarx:\S+", "\n".join(path.read_text() for path in CLUSTERS.rglob("*.yaml")))
    assert {*images} == {f"sarx:ray{PINS['ray']}-torch{PINS['torch']}"}


# ------------------------------------------------------------ Ray's cluster launcher


def prepared(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    found = prepare_config(copy.deepcopy(config))
    validate_config(found)
    return found


@pytest.mark.parametrize("place", ["aws", "gcp"])
def test_a_launcher_file_is_valid_for_ray(place):
    from jsonschema import ValidationError

    config = load(f"{place}/cluster.yaml")
    found = prepared(config)
    assert found["provider"]["type"] == place
    workers = found["available_node_types"]["gpu"]
    assert (workers["min_workers"], workers["max_workers"]) == (0, found["max_workers"])
    assert workers["resources"]["GPU"] >= 1
    assert found["idle_timeout_minutes"] <= 15
    assert found["setup_commands"] == found["head_setup_commands"] == []  # none of Ray's defaults is left
    head, *more = found["head_start_ray_commands"]
    assert not more
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    options = " ".join(found["docker"]["run_options"])
    ((mounted, local),) = found["file_mounts"].items()
    assert "RAY_AUTH_MODE=token" in options
    assert f"RAY_AUTH_TOKEN_PATH={mounted}/auth_token" in options
    assert local == f".sarx/{place}/token"
    node = workers["node_config"]
    if place == "aws":
        assert node["InstanceMarketOptions"]["MarketType"] == "spot"
        assert "--env AWS_REGION=" in options  # without it only a bucket in us-east-1 is found
        assert "IpPermissions" not in found["provider"]["security_group"]  # nothing but Ray's rule for ssh
    else:
        assert node["scheduling"]["provisioningModel"] == "SPOT"
    with pytest.raises(ValidationError, match="idle_minutes"):
        prepared(config | {"idle_minutes": 5})
    wrong = copy.deepcopy(config)
    wrong["available_node_types"]["gpu"]["resources"]["GPU"] = -1
    with pytest.raises(ValidationError):
        prepared(wrong)


def parsed(words):
    """Return the options of a command of Ray's command line as Ray itself reads them."""
    from ray.scripts.scripts import cli

    command = cli.get_command(None, words[0])
    return command.make_context(words[0], [*words[1:]]).params


def test_commands_are_such_as_ray_knows(tmp_path):
    from click import NoSuchOption

    site = Site("aws", CLUSTERS / "aws", tmp_path, {"SARX_STORAGE": "s3://x/y"})
    launcher.record_name(site)
    found = parsed(launcher.up_command(site, ["--max-workers=2"])[1:])
    assert (found["yes"], found["no_restart"], found["max_workers"]) == (True, True, 2)
    assert found["cluster_config_file"] == str(CLUSTERS / "aws" / "cluster.yaml")
    assert parsed(launcher.down_command(site)[1:])["yes"] is True
    assert parsed(launcher.shell(site, "echo 'a b'")[1:])["cmd"] == "echo 'a b'"
    found = parsed(launcher.forward(site, 8266, 8265)[1:])
    assert (found["port"], found["remote_port"]) == (8266, 8265)
    found = parsed(node.start_command(node.Wanted("10.1.0.1", None, "t", cpus=4, gpus=0))[1:])
    assert (found["head"], found["block"], found["num_cpus"], found["num_gpus"]) == (True, True, 4, 0)
    found = parsed(node.start_command(node.Wanted("10.1.0.2", "10.1.0.1:6379", "t"))[1:])
    assert (found["head"], found["address"], found["num_gpus"]) == (False, "10.1.0.1:6379", None)
    for place in ("aws", "gcp"):
        config = load(f"{place}/cluster.yaml")
        for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
            parsed(command.split()[1:])
    script = (CLUSTERS / "slurm" / "node.sh").read_text(encoding="utf-8")
    parsed(["start", "--head", *(f"{option}=1" for option in re.findall(r"--[a-z-]+(?==)", script))])
    with pytest.raises(NoSuchOption):
        parsed(["start", "--heads"])


# ------------------------------------------------------------ Kubernetes

TYPES = {"string": str, "integer": int, "boolean": bool, "number": (int, float), "object": dict, "map": dict}


def fields():
    lines = [line.split() for line in FIELDS.read_text().splitlines() if line and not line.startswith("#")]
    return {path: (kind, allowed[0].split("|") if allowed else None) for path, kind, *allowed in lines}


def unknown(value, path, known):
    """Return what of a manifest is not in the API: unknown fields, other types, other values."""
    if path == "RayJob.spec.rayClusterSpec":
        path = "RayCluster.spec"
    kind, allowed = known[path]
    if kind == "*":
        return []
    if kind in TYPES and (
        not isinstance(value, TYPES[kind]) or (kind != "boolean" and isinstance(value, bool))
    ):
        return [f"{path} is no {kind}"]
    if allowed and value not in allowed:
        return [f"{path} is {value}"]
    if kind != "object":
        return []
    found = []
    for key, part in value.items():
        inner = f"{path}.{key}"
        if f"{inner}[]" in known:
            found += [f"{inner} is no list"] if not isinstance(part, list) else []
            found += [wrong for entry in part for wrong in unknown(entry, f"{inner}[]", known)]
        elif inner in known:
            found += unknown(part, inner, known)
        else:
            found.append(inner)
    return found


def whole(manifest):
    known = fields() | {manifest["kind"]: ("object", None)}
    return unknown(manifest, manifest["kind"], known)


def spec_of(manifest):
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_fields_are_those_of_kuberay(name):
    manifest = load(f"kuberay/{name}")
    assert whole(manifest) == []
    spec = spec_of(manifest)
    spec["headGroupSpec"]["rayStartParam"] = {}
    spec["workerGroupSpecs"][0]["minReplicas"] = "0"
    spec["authOptions"]["mode"] = "none"
    assert {text.rpartition("spec.")[2] for text in whole(manifest)} == {
        "headGroupSpec.rayStartParam",
        "workerGroupSpecs[].minReplicas is no integer",
        "authOptions.mode is none",
    }


def pods():
    for name in ("raycluster.yaml", "rayjob.yaml"):
        spec = spec_of(load(f"kuberay/{name}"))
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "x"},
                "spec": group["template"]["spec"],
            }


@pytest.mark.parametrize("pod", list(pods()))
def test_pods_are_valid_and_confined(pod):
    kubernetes_validate.validate(pod, "1.34", strict=True)
    context = pod["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["fsGroup"] == 1000
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()
    assert container["livenessProbe"]["httpGet"] == container["readinessProbe"]["httpGet"]
    assert {"name": "results", "mountPath": "/results"} in container["volumeMounts"]
    wrong = copy.deepcopy(pod)
    wrong["spec"]["containers"][0]["livenessProbe"]["httpGet"]["prot"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


@pytest.mark.parametrize("name", ["storage.yaml", "network.yaml"])
def test_what_is_kubernetes_own_is_valid(name):
    manifest = load(f"kuberay/{name}")
    kubernetes_validate.validate(manifest, "1.34", strict=True)
    manifest["spec"]["surplus"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_the_parts_of_the_kubernetes_cluster_fit_together():
    cluster, job = load("kuberay/raycluster.yaml"), load("kuberay/rayjob.yaml")
    head = spec_of(job)["headGroupSpec"]["template"]["spec"]  # has the study besides
    assert head["volumes"].pop() == {"name": "study", "configMap": {"name": "sarx-study"}}
    mounted = head["containers"][0]["volumeMounts"].pop()
    assert mounted == {"name": "study", "mountPath": "/study", "readOnly": True}
    assert spec_of(job) == spec_of(cluster)
    assert job["spec"]["entrypoint"] == jobs.entrypoint("/study/study.yaml")
    variables = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert json.loads(variables["SARX_CLUSTER_GROWS"]) == kuberay.kinds_of(cluster["spec"], "")
    assert cluster["metadata"]["name"] == kuberay.CLUSTER
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": kuberay.SECRET}
    manifest = yaml.safe_load(kuberay.secret("abc"))
    kubernetes_validate.validate(manifest, "1.34", strict=True)
    assert manifest["metadata"]["name"] == kuberay.SECRET
    claim = load("kuberay/storage.yaml")["metadata"]["name"]
    policy = load("kuberay/network.yaml")
    chosen = policy["spec"]["podSelector"]["matchLabels"]
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        template = group["template"]
        assert chosen.items() <= template["metadata"]["labels"].items()
        assert {"name": "results", "persistentVolumeClaim": {"claimName": claim}} in template["spec"][
            "volumes"
        ]
    (workers,) = cluster["spec"]["workerGroupSpecs"]
    assert workers["minReplicas"] == workers["replicas"] == 0
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert workers["template"]["spec"]["nodeSelector"]


# ------------------------------------------------------------ shell and container


def lint(*command):
    done = subprocess.run([str(BIN / command[0]), *command[1:]], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_shell_files_pass_shellcheck(tmp_path):
    files = [*CLUSTERS.rglob("*.sh"), *CLUSTERS.rglob("*.sbatch"), *CLUSTERS.rglob("*.env")]
    assert len(files) >= 7
    code, said = lint(
        "shellcheck", "--external-sources", "--shell=bash", "--exclude=SC2034", *map(str, files)
    )
    assert code == 0, said
    bad = tmp_path / "bad.sh"
    bad.write_text("#!/bin/bash\nrm $1\n")
    assert lint("shellcheck", str(bad))[0] == 1


def test_the_container_file_passes_hadolint_and_takes_no_secrets(tmp_path):
    code, said = lint("hadolint", str(CLUSTERS / "Containerfile"))
    assert code == 0, said
    bad = tmp_path / "Containerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp\n")
    assert lint("hadolint", str(bad))[0] == 1
    lines = (CLUSTERS / "Containerfile").read_text(encoding="utf-8").splitlines()
    user = max(number for number, line in enumerate(lines) if line.startswith("USER "))
    assert lines[user] == "USER 1000:1000"
    assert not [line for line in lines[user:] if line.startswith("RUN")]
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    ignored = Path(".dockerignore").read_text(encoding="utf-8").split("\n")
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert [line for line in ignored if line and line[0] not in "#!"] == ["*", "**/__pycache__"]
    assert kept == copied
    assert not kept & {".sarx", "results", ".git", ".venv"}
