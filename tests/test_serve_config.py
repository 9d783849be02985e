"""The settings of serving: what is refused and how, and how a run or a model becomes what is served."""

import hashlib
from pathlib import Path

import pytest
from run_directories import write_run

from east_ray.config import AnswersConfig, InputError, PromptConfig
from east_ray.serving.settings import (
    TOKEN_VARIABLE,
    from_command_line,
    is_loopback,
    resolve,
    token_digest,
    with_gpus,
)
from east_ray.storage import RunDirectory

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("http.prot=1", "http.prot: unknown key; did you mean port?"),
        ("http.port=0", "http.port: 0 given, expected greater than or equal to 1"),
        ("replicas.min_replicas=3", "replicas: min_replicas 3 is greater than max_replicas 1"),
        ("name=-x", "name: '-x' given"),
        ("port", "'port' is not an override"),
        ("http.host=0.0.0.0", "http.host: 0.0.0.0 can be reached from other machines; set EAST_RAY_TOKEN"),
    ],
)
def test_what_is_refused_and_how(override: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        from_command_line("m", [override])
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    assert from_command_line("m", [f'http.host="{host}"']).http.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"])
def test_any_other_needs_one_unless_told_so(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_loopback(host)
    asked = [f'http.host="{host}"']
    with pytest.raises(InputError):
        from_command_line("m", asked)
    assert from_command_line("m", [*asked, "allow_without_token=true"])
    assert from_command_line("m", [*asked, "token_file=secret"])
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert from_command_line("m", asked)


def test_only_the_digest_of_the_token_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_digest(from_command_line("m", [])) is None
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    settings = from_command_line("m", [f"token_file={file}"])
    assert token_digest(settings) == hashlib.sha256(TOKEN.encode()).hexdigest()
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN[::-1])
    assert token_digest(settings) == hashlib.sha256(TOKEN[::-1].encode()).hexdigest()


@pytest.mark.parametrize(("content", "said"), [("short", "at least 16"), ("", "empty"), (None, "cannot be read")])
def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=said) as error:
        token_digest(from_command_line("m", [f"token_file={file}"]))
    assert not content or content not in str(error.value)


def test_a_model_is_served_as_it_is(quickstart: Path) -> None:
    found = resolve(from_command_line(str(quickstart / "model"), ["engine_args.dtype=float32"]))
    assert (found.model, found.name, found.engine_args) == (str(quickstart / "model"), "model", {"dtype": "float32"})
    assert (found.prompt, found.answers, found.replicas.num_cpus) == (PromptConfig(), AnswersConfig(), 1)
    with pytest.raises(InputError, match="no rounds"):
        resolve(from_command_line(str(quickstart / "model"), ["round=0"]))
    assert resolve(from_command_line("openai/some-model", [])).name == "some-model"


def test_of_a_run_the_newest_trained_model_is_served(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "my run", rounds=2, description="")
    found = resolve(from_command_line(str(tmp_path / "my run"), []))
    assert (found.model, found.name) == (str(tmp_path / "my run/round_1/model"), "my-run")
    assert directory.config.engines.num_cpus_per_engine is None and found.replicas.num_cpus == 1
    assert resolve(from_command_line(str(tmp_path / "my run"), ["round=0", "name=x"])).model.endswith("round_0/model")
    with pytest.raises(InputError, match="no trained model in round 2"):
        resolve(from_command_line(str(tmp_path / "my run"), ["round=2"]))


def test_what_the_run_says_holds_unless_told_otherwise(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", description="")
    sections = {
        "prompt": PromptConfig(template="Q: {question}"),
        "answers": AnswersConfig(equivalence="string"),
        "engines": directory.config.engines.model_copy(update={"engine_args": {"dtype": "float32", "seed": 1}}),
    }
    directory.store(directory.config.model_copy(update=sections))
    found = resolve(from_command_line(str(tmp_path / "run"), ["engine_args.seed=2", "prompt.system=Think."]))
    assert found.engine_args == {"dtype": "float32", "seed": 2}
    assert (found.answers, found.prompt) == (AnswersConfig(equivalence="string"), PromptConfig(system="Think."))


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a run"):
        resolve(from_command_line(str(tmp_path), []))
    run = RunDirectory(write_run(tmp_path / "run", description="").config)
    (run.round(0) / "stages").clear()
    with pytest.raises(InputError, match="has no trained model yet"):
        resolve(from_command_line(str(tmp_path / "run"), []))


def test_a_replica_has_a_gpu_for_each_shard_where_there_are_any(quickstart: Path) -> None:
    shards = from_command_line(str(quickstart / "model"), ["engine_args.tensor_parallel_size=2"])
    assert resolve(shards).replicas.num_gpus is None  # only the cluster can tell
    assert with_gpus(resolve(shards), has_gpus=False).replicas.num_gpus == 0
    assert with_gpus(resolve(shards), has_gpus=True).replicas.num_gpus == 2
    one = resolve(from_command_line(str(quickstart / "model"), ["replicas.num_gpus=1"]))
    assert with_gpus(one, has_gpus=False) == one
    too_few = shards.model_copy(update={"replicas": shards.replicas.model_copy(update={"num_gpus": 1.0})})
    with pytest.raises(InputError, match=r"replicas.num_gpus: 1, but tensor_parallel_size .* is 2"):
        resolve(too_few)


@pytest.mark.parametrize("name", ["model", "served_model_name"])
def test_the_engine_s_model_and_its_name_are_the_service_s(name: str) -> None:
    with pytest.raises(InputError, match=f"engine_args.{name}"):
        from_command_line("m", [f"engine_args.{name}=other"])
