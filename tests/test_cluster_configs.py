"""The shipped cluster shapes: accepted by Ray's own schema and command line, safe, and of the pinned versions."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import PYTHON_PATH

from east_ray import __version__
from east_ray.config.files import load
from east_ray.records import EXAMPLES
from east_ray.storage import Folder, locate

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "cluster_configs"
LAUNCHER = ("local", "aws", "gcp")
KUBERAY = ("kuberay_cluster", "kuberay_job")
PINNED = dict(re.findall(r'"([\w-]+)(?:\[[\w,]*\])?==([0-9.]+)"', (ROOT / "pyproject.toml").read_text()))
RAY_VERSION = PINNED["ray"]
#: What a user replaces by an image of their own.
IMAGE = f"REGISTRY/east-ray:{__version__}"


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
        assert config["docker"]["image"] == IMAGE


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
        assert container["image"] == IMAGE
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


def test_an_image_stands_in_one_place_of_a_file_with_the_command_that_builds_it() -> None:
    using = [path for path in FOLDER.iterdir() if re.search(r"/east-ray:\d", path.read_text())]
    assert {path.stem for path in using} == {"Dockerfile", "aws", "gcp", *KUBERAY}
    for path in using:
        head, settings = (
            "\n".join(line for line in path.read_text().splitlines() if line.startswith("#") is is_comment)
            for is_comment in (True, False)
        )
        assert set(re.findall(r"\S+/east-ray:[\d.]*\d", head + settings)) == {IMAGE}
        assert f"#     docker build --tag {IMAGE} --file cluster_configs/Dockerfile ." in head
        assert settings.count(IMAGE) == (path.name != "Dockerfile")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: name, arguments."""
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")]


def test_the_image_has_the_pinned_versions_and_ends_with_a_user_that_is_not_root() -> None:
    given = instructions()
    assert given[0][0] == "FROM" and given[0][1].startswith(f"rayproject/ray:{RAY_VERSION}-py311-cu")
    installed = {
        name: version
        for instruction, command in given
        if instruction == "RUN"
        for name, version in re.findall(r"([\w-]+)(?:\[[\w,]*\])?==([0-9.]+)", command)
    }
    assert installed == {name: PINNED[name] for name in ("torch", "ray", "deepspeed", "vllm")}
    *_, user = (arguments for instruction, arguments in given if instruction == "USER")
    assert user.isdigit() and int(user) > 0
    # What the last installation reads, and no more: neither runs nor .git get into the image.
    copied = [source for name, words in given if name == "COPY" for source in shlex.split(words)[1:-1]]
    assert set(copied) == {"pyproject.toml", "README.md", "LICENSE", "east_ray", "jobs"}
    assert all((ROOT / source).exists() for source in copied)


def test_the_dockerfile_is_linted() -> None:
    hadolint = shutil.which("hadolint", path=PYTHON_PATH)
    assert hadolint, "hadolint is missing; it is in the extra `dev`"

    def lint(text: str) -> "subprocess.CompletedProcess[str]":
        command = [hadolint, "--no-color", "-"]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)

    text = (FOLDER / "Dockerfile").read_text()
    found = lint(text)
    assert found.returncode == 0, found.stdout
    assert "DL3007" in lint(re.sub(r"^FROM .*", "FROM rayproject/ray:latest", text, flags=re.MULTILINE)).stdout


@pytest.mark.drill
@pytest.mark.timeout(5400)  # some ten gigabytes are downloaded
def test_the_image_is_built_where_docker_runs() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        pytest.skip("no docker daemon answers here")
    subprocess.run([docker, "build", "--tag", "east-ray:test", "--file", FOLDER / "Dockerfile", ROOT], check=True)
    said = subprocess.run(
        [docker, "run", "--rm", "east-ray:test", "sh", "-c", "id -u; east-ray --version; python -c 'import vllm'"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.split()[:2] == ["1000", __version__]


# --------------------------------------------------------------------------------------------------------------- Slurm


def slurm_node(folder: Path, *, nodes: int, srun: str) -> dict[str, str]:
    """The environment of a Slurm job: one node of it, 127.0.0.1, has been given; `srun` is a program of the test's."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in (("srun", srun), ("scontrol", "#!/bin/sh\necho 127.0.0.1\necho 127.0.0.2\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{PYTHON_PATH}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_CPUS_PER_TASK": "2",
    }


def test_the_slurm_job_is_one_task_on_each_node_with_a_token_that_only_its_owner_reads(tmp_path: Path) -> None:
    script = FOLDER / "slurm.sh"
    wanted = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(), re.MULTILINE))
    assert (
        wanted["ntasks-per-node"] == "1" and {"nodes", "gpus-per-node", "cpus-per-task", "exclusive"} <= wanted.keys()
    )
    told = f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ['RAY_AUTH_MODE']]))\n"
    environment = slurm_node(tmp_path, nodes=2, srun=told)
    command = ["bash", script, "run", "a file.yaml", "weighting.exponent=2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    words, mode = json.loads(done.stdout)
    assert mode == "token" and stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600
    begin = words.index("ray")
    assert words[:begin] == ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2"]
    started, _, asked = " ".join(words[begin:]).partition(" -- ")
    assert started == "ray symmetric-run --address 127.0.0.1:6379 --min-nodes 2 --num-cpus=2"
    assert asked == "python -m east_ray run a file.yaml weighting.exponent=2 cluster.address=127.0.0.1:6379"


@pytest.mark.drill
def test_the_slurm_job_runs_on_a_node_and_goes_on(tmp_path: Path) -> None:
    """In namespaces of its own: Ray's port is free there, and the end of the job ends no other Ray of this machine."""
    unshare = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    may = subprocess.run([*unshare, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    if may.returncode:
        pytest.skip(f"network namespaces may not be made here: {may.stderr.strip()}")
    once = '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n'  # its options have "=" in them
    rows = [
        {"question": f"{number} + 1?", "reference_answer": str(number + 1), "responses": [r"\boxed{2}", r"\boxed{3}"]}
        for number in range(4)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [str(FOLDER / "slurm.sh"), "weigh", str(tmp_path / "samples.jsonl"), f"run_dir={tmp_path / 'run'}"]
    command = [*unshare, "sh", "-c", f"ip link set lo up && exec bash {shlex.join(words)}"]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:  # sockets in it have short names
        environment = slurm_node(tmp_path, nodes=1, srun=once) | {"RAY_TMPDIR": short}
        for said in ("2 all_wrong: one of them, '0 + 1?', has the reference answer '1'", "done before"):
            done = subprocess.run(
                command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280
            )
            assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr
    examples = Folder(*locate(str(tmp_path / "run" / "round_0" / "examples"))).read(EXAMPLES)
    assert examples.num_rows == 2


def test_every_command_in_a_comment_is_a_valid_configuration() -> None:
    assert len(commands()) >= 5
    for command in commands():
        job, *overrides = shlex.split(command.removeprefix("python -m east_ray run "))
        config = load(ROOT / job.removeprefix("/home/ray/east-ray/"), overrides)
        assert config.run_dir
