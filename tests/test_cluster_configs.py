"""The shipped cluster shapes: accepted by Ray's own schema and command line, safe, and of the pinned Ray."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from east_ray.config.files import load

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "cluster_configs"
LAUNCHER = ("local", "aws", "gcp")
KUBERAY = ("kuberay_cluster", "kuberay_job")
RAY_VERSION = re.search(r'"ray\[[^]]*\]==([0-9.]+)"', (ROOT / "pyproject.toml").read_text())[1]  # type: ignore[index]


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def cluster_spec(name: str) -> Any:
    manifest = read(name)
    return manifest["spec"] if manifest["kind"] == "RayCluster" else manifest["spec"]["rayClusterSpec"]


def test_every_file_is_tested_and_says_what_it_is_for() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(
        [*LAUNCHER, *KUBERAY, "local_autoscaling", "serve"]
    )
    for path in FOLDER.glob("*.yaml"):
        head = re.match(r"(# .+\n#?\n?)+", path.read_text())
        assert head and "#     " in path.read_text(), path


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_launcher_accepts_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read(name))  # fills in the provider's defaults
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    with pytest.raises(Exception, match="no_such_key"):
        validate_config(config | {"no_such_key": 1})


def test_the_autoscaler_accepts_the_local_one() -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(read("local_autoscaling"))  # its defaults are not in Ray's wheel


def test_ray_serve_accepts_the_service_and_its_settings_are_ours() -> None:
    from ray.serve.schema import ServeDeploySchema

    from east_ray import serving
    from east_ray.config.base import validated
    from east_ray.serving.deployment import CONTROLLER_OPTIONS
    from east_ray.serving.settings import ServingConfig

    config = ServeDeploySchema.model_validate(read("serve"))
    (application,) = config.applications
    module, _, function = application.import_path.partition(":")
    assert module == "east_ray.serving" and getattr(serving, function) is serving.build
    assert validated(ServingConfig, application.args).model
    assert config.http_options.host == "127.0.0.1"
    assert config.controller_options is not None
    assert config.controller_options.model_dump() == CONTROLLER_OPTIONS


@pytest.mark.parametrize("name", LAUNCHER)
def test_its_commands_are_ray_s_own_with_the_token_on_and_the_dashboard_on_loopback(name: str) -> None:
    from ray.scripts.scripts import start

    config = read(name)
    options = {option for parameter in start.params for option in parameter.opts}
    for group in ("head", "worker"):
        (command,) = [line for line in config[f"{group}_start_ray_commands"] if "ray start" in line]
        environment, _, arguments = command.partition("ray start ")
        assert environment.split() == ["RAY_AUTH_MODE=token"]
        given = {word.split("=")[0] for word in shlex.split(arguments) if word.startswith("--")}
        assert given <= options, given - options
        if group == "head":
            assert "--dashboard-host=127.0.0.1" in arguments
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    if "docker" in config:
        assert config["docker"]["image"].startswith(f"rayproject/ray:{RAY_VERSION}-py311")


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_samplers_are_spot_and_come_from_nothing_and_trainers_are_not(name: str) -> None:
    types = read(name)["available_node_types"]
    assert types["sampler"]["min_workers"] == types["trainer"]["min_workers"] == 0 < types["sampler"]["max_workers"]
    spot = {kind: "spot" in str(node["node_config"]).lower() for kind, node in types.items()}
    assert spot == {"head": False, "sampler": True, "trainer": False}


@pytest.mark.parametrize("name", KUBERAY)
def test_a_manifest_is_of_kuberay_s_kind(name: str) -> None:
    """The whole of KubeRay's schema is not here; this is what goes wrong silently."""
    manifest, spec = read(name), cluster_spec(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert spec["rayVersion"] == RAY_VERSION and spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] and spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups.keys() == {"sampler", "trainer"}
    for group in (spec["headGroupSpec"], *groups.values()):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    for kind, group in groups.items():
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
        assert f'{{\\"{kind}\\":' in group["rayStartParams"]["resources"]
    # The two manifests differ in nothing but their wrapping.
    assert spec == cluster_spec(KUBERAY[0])


def commands() -> list[str]:
    """Every `east_ray` command that a head comment or a manifest gives, on one line."""
    found = []
    for path in FOLDER.glob("*.yaml"):
        text = "\n".join(line.lstrip("# ") for line in path.read_text().splitlines()).replace("\\\n", " ")
        text = re.sub(r"\n(?=engines\.|training\.)", " ", text)
        found += [command.removesuffix('"') for command in re.findall(r"python -m east_ray run .*", text)]
    return found


def test_every_command_in_a_comment_is_a_valid_configuration() -> None:
    assert len(commands()) >= 5
    for command in commands():
        job, *overrides = shlex.split(command.removeprefix("python -m east_ray run "))
        config = load(ROOT / job.removeprefix("/home/ray/east-ray/"), overrides)
        assert config.run_dir
