"""Settings: what is accepted, what is refused and in which words, and what a stored run is compared by."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from settings_tables import settings_tables

from east_ray.config import Config, InputError, devices
from east_ray.config import files as config_file
from east_ray.config.base import differences, section_type
from east_ray.config.files import dump_documented, load, resolve
from east_ray.storage import folders as storage

JOBS = Path(__file__).parent.parent / "jobs"
MINIMAL = {"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}}


def test_defaults_are_the_papers() -> None:
    settings = resolve(MINIMAL)
    assert settings.sampling.responses_per_question == 128
    assert (settings.weighting.signal, settings.weighting.mapping) == ("entropy", "power")
    assert (settings.training.epochs, settings.training.examples_per_step) == (3, 16)


def test_overrides_reach_any_depth_and_are_read_as_yaml() -> None:
    settings = resolve(
        MINIMAL,
        [
            "training.deepspeed.zero_stage=3",
            "training.learning_rate=2e-6",
            "engines.engine_args={tensor_parallel_size: 2}",
            "evaluation.questions.path=t.jsonl",
        ],
    )
    assert settings.training.deepspeed.zero_stage == 3
    assert settings.training.learning_rate == 2e-6  # YAML 1.1 would read a string
    assert settings.engines.engine_args == {"tensor_parallel_size": 2}
    assert settings.evaluation.questions is not None and settings.evaluation.questions.path == "t.jsonl"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sampling.responses_per_questoin=3",
            "sampling.responses_per_questoin: unknown key; did you mean responses_per_",
        ),
        ("samplign.top_p=1", "samplign: unknown key; did you mean sampling?"),
        ("weighting.zzz=1", "weighting.zzz: unknown key; known here: signal, mapping, exponent"),
        ("sampling.temperature=-1", "sampling.temperature: -1 given, expected greater than 0"),
        ("sampling.temperature=hot", "sampling.temperature: 'hot' given, expected number"),
        ("sampling.responses_per_question=2.5", "sampling.responses_per_question: 2.5 given, expected integer"),
        ("sampling.responses_per_question='8'", "sampling.responses_per_question: '8' given, expected integer"),
        ("sampling.seeded=maybe", "sampling.seeded: 'maybe' given, expected 'auto', True or False"),
        (
            "weighting.signal=entropie",
            "weighting.signal: 'entropie' given, expected entropy, accuracy, rejection, variance, margin, "
            "wrong_entropy, disagreement, uniform or module:name; did you mean entropy?",
        ),
        (
            "weighting.signal=mine:1",
            "weighting.signal: 'mine:1' given, expected entropy, accuracy, rejection, ",
        ),
        ("weighting.mapping=pover", "or module:name; did you mean power?"),
        ("training.objective=dpoo", "expected sft, dpo, kto or module:name; did you mean dpo?"),
        ("questions.format=gsm", "expected auto, gsm8k, math, columns or module:name; did you mean gsm8k?"),
        (
            "answers.grader=maths",
            "answers.grader: 'maths' given, expected math, choice, text, number or module:name; did you mean math?",
        ),
        ("answers.grader_timeout_s=0", "answers.grader_timeout_s: 0 given, expected greater than 0"),
        ("sampling.backend=vlm", "expected vllm, endpoint, scripted or module:name; did you mean vllm?"),
        ("compare={grids: [{signals: [entrpy]}]}", "compare.grids.0.signals.0: 'entrpy' given, expected entropy,"),
        ("compare={baseline: sft-unifrom}", "baseline: no training is called sft-unifrom; did you mean sft-uniform?"),
        ("weighting.exponent=.inf", "weighting.exponent: inf given, expected a finite number"),
        ("weighting.exponent=.nan", "weighting.exponent: nan given, expected a finite number"),
        ("training=fast", "training: 'fast' given, expected dictionary"),
        ("questions.hub=openai/gsm8k", "questions: give exactly one of path and hub"),
        ("engines.min_engines=3", "engines: min_engines 3 is greater than max_engines 1"),
        ("prompt.template=hello", "prompt: template must contain {question}"),
        ("training.num_workers=32", "training: examples_per_step 16 is smaller than num_workers 32"),
        (
            "training.deepspeed.extra={gradient_clipping: 2.0}",
            "training.deepspeed: extra.gradient_clipping: training.max_grad_norm decides this; set that instead",
        ),
        ("training.deepspeed.extra={bf16: {enabled: true}}", "extra.bf16: training.precision decides this"),
        (
            "training.deepspeed.extra={zero_optimization: {offload_param: {device: nvme}}}",
            "extra.zero_optimization.offload_param.device: training.deepspeed.offload_parameters decides this",
        ),
        (
            "training.deepspeed.extra={prescale_gradients: true}",
            "it would change what losses and gradients are divided",
        ),
        ("training.deepspeed.extra={comunication_data_type: fp32}", "here; did you mean communication_data_type?"),
        ("training.deepspeed.extra={communication_data_type: 8}", "8 given, expected fp32, fp16 or bf16"),
        ("training.deepspeed.extra={zero_optimization: 3}", "zero_optimization: 3 given, expected a mapping"),
        (
            "training.deepspeed={zero_stage: 1, offload_parameters: true}",
            "training.deepspeed: offload_parameters needs",
        ),
        ("variants.a.sampling.top_p=1", "variants.a.sampling.top_p: only labels, selection, weighting, training, "),
        ("variants.a.answers.last_number=true", "variants.a.answers.last_number: only labels, selection, weighting,"),
        ("variants.a.weighting.signal=none", "variants.a.weighting.signal: 'none' given, expected"),
        ("variants.a/b={}", "variants.a/b: a name consists of letters"),
        ("weighting.exponent", "'weighting.exponent' is not an override: expected key=value"),
        ("weighting.exponent=[1", "weighting.exponent=[1: not valid YAML in line 1"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        resolve(MINIMAL, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_comparison_has_no_variants() -> None:
    with pytest.raises(InputError, match="compare: cannot be combined with variants"):
        resolve(MINIMAL, ["compare={}", "variants.a.weighting.signal=uniform"])


def test_missing_keys_are_named() -> None:
    with pytest.raises(InputError, match="model: missing; this key is required"):
        resolve({"run_dir": "r", "questions": {"path": "q"}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: [\n", "not valid YAML in line 2"),
        (b"- 1\n", "expected keys with values (model: …, run_dir: …), found list"),
        (b"# nothing yet\n", "the file is empty; expected keys with values (model: …, run_dir: …)"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        load(file)
    assert str(file) in str(error.value) and message in str(error.value)
    with pytest.raises(InputError, match="cannot read the configuration"):
        load(tmp_path)
    with pytest.raises(
        InputError, match=r"none\.yaml does not exist; expected a run directory or the YAML file of a run"
    ):
        load(tmp_path / "none.yaml")


def test_what_is_wrong_is_said_of_the_file_or_of_the_command_line() -> None:
    text = "{model: m, run_dir: r, questions: {path: q}, sampling: {top_pp: 1}}"
    with pytest.raises(InputError) as error:
        config_file.parse(text, "run.yaml", ["weighting.expnent=2", "plan={gpuu: x}"])
    assert str(error.value).startswith("run.yaml: sampling.top_pp: unknown key; did you mean top_p? command line: ")
    assert "? command line: weighting.expnent: unknown key; did you mean exponent?" in str(error.value)
    assert "command line: plan.gpuu: unknown key" in str(error.value) and "?;" not in str(error.value)


@pytest.mark.parametrize("job", sorted(JOBS.glob("*.yaml")), ids=lambda job: job.name)
def test_every_job_is_valid_and_survives_being_written_and_read(job: Path, tmp_path: Path) -> None:
    settings = load(job)
    for text in (config_file.dump(settings), dump_documented(settings)):
        (tmp_path / "copy.yaml").write_text(text, encoding="utf-8")
        assert load(tmp_path / "copy.yaml") == settings
    assert not Path(settings.run_dir).is_absolute()
    assert Path(settings.run_dir).parts[0] == "runs"


def test_every_setting_has_a_documented_meaning() -> None:
    def undocumented(section: type[BaseModel], prefix: str) -> list[str]:
        found = []
        for name, field in section.model_fields.items():
            found += [] if field.description else [prefix + name]
            inner = section_type(field.annotation)
            found += undocumented(inner, f"{prefix}{name}.") if inner else []
        return found

    assert undocumented(Config, "") == []


def test_only_what_changes_results_sets_two_runs_apart() -> None:
    stored = resolve(MINIMAL)
    free = [
        "training.num_workers=4",
        "training.micro_batch_size=null",
        "training.tokens_per_micro_batch=4096",
        "training.gradient_checkpointing=offload",
        "training.deepspeed.zero_stage=3",
        "training.checkpoint_every_minutes=5.0",
        "engines.engine_args={max_num_seqs: 8}",
        "engines.max_engines=8",
        "cluster.num_cpus=2",
        "run_dir=elsewhere",
        "description=x",
    ]
    assert differences(stored, resolve(MINIMAL, free)) == []
    (difference,) = differences(stored, resolve(MINIMAL, ["engines.engine_args={quantization: fp8}"]))
    assert difference == "engines.engine_args.quantization: None there, 'fp8' now"
    changed = resolve(MINIMAL, ["weighting.exponent=2.0", "variants={u: {weighting.signal: uniform}}"])
    assert differences(stored, changed) == [
        "weighting.exponent: 1.0 there, 2.0 now",
        "variants: {} there, {'u': {'weighting.signal': 'uniform'}} now",
    ]


def test_a_run_keeps_its_seeds_when_its_engines_change_their_device() -> None:
    def seeded(*overrides: str, stored: Config | None = None) -> object:
        return resolve(MINIMAL, overrides).settled(stored).sampling.seeded

    gpu = "engines.num_gpus_per_engine=1"
    assert (seeded(), seeded(gpu)) == (True, False)
    there = ("sampling.backend=endpoint", "engines.endpoint={url: http://127.0.0.1/v1, model: m}")
    assert (seeded(*there), seeded(*there, "sampling.seeded=true")) == (False, True)
    assert (seeded("sampling.seeded=false"), seeded(gpu, "sampling.seeded=true")) == (False, True)
    on_cpu, on_gpu = resolve(MINIMAL).settled(), resolve(MINIMAL, [gpu]).settled()
    assert (seeded(gpu, stored=on_cpu), seeded(stored=on_gpu)) == (True, False)
    assert seeded("sampling.seeded=false", stored=on_cpu) is False  # as given; a comparison with the stored one refuses
    assert differences(on_cpu, resolve(MINIMAL, ["sampling.seeded=false"]))


@pytest.mark.parametrize(
    ("overrides", "cores", "cpus", "threads"),
    [
        ([], 1, 1, 1),
        ([], 16, 15, 15),
        (["engines.max_engines=2"], 16, 1, 1),
        (["engines.num_gpus_per_engine=1"], 16, 1, 1),
        (["engines.num_cpus_per_engine=0.5"], 16, 0.5, 1),
        (["engines.num_cpus_per_engine=4"], 2, 4, 4),
        (["engines.env={OMP_NUM_THREADS: '2'}"], 16, 15, 2),
    ],
)
def test_an_engine_without_a_gpu_takes_the_cores_that_it_is_given(
    overrides: list[str], cores: int, cpus: float, threads: int
) -> None:
    engines = resolve(MINIMAL, overrides).engines
    assert (devices.cpus(engines, cores), devices.threads(engines, cores)) == (cpus, threads)


def test_a_setting_may_change_until_a_stage_has_used_it() -> None:
    stored, done = resolve(MINIMAL | {"model": "", "samples": {"path": "s"}, "questions": None}), set[str]()
    now = resolve(
        config_file.merge(
            stored.model_dump(), ["weighting.exponent=2.0", "evaluation.max_tokens=7", "seed=1", "model=m"]
        )
    )

    def fixed() -> list[str]:
        return [difference.partition(":")[0] for difference in differences(stored, now, done.__contains__)]

    assert fixed() == ["seed"]
    done.add("evaluation")
    assert fixed() == ["seed", "evaluation.max_tokens"]
    done.add("examples")
    assert fixed() == ["seed", "weighting.exponent", "evaluation.max_tokens"]


def test_the_arms_of_a_comparison_are_named_after_their_parts() -> None:
    grid = {"signals": ["uniform", "own.parts:signal"], "mappings": ["own:mapping"], "exponents": [1.5]}
    compare = {"seeds": [0], "grids": [grid, {"suffix": "-8", "overrides": {"answers.responses": 8}}]}
    settings = resolve(MINIMAL | {"compare": compare}).compare
    assert settings is not None
    assert settings.baselines() == {
        "sft-uniform": None,
        "sft-own.parts.signal-a1.5-own.mapping": "sft-uniform",
        "sft-uniform-8": None,
        "sft-entropy-a1-8": "sft-uniform-8",
    }
    assert resolve(MINIMAL | {"compare": compare}).variant("sft-uniform-8-seed-0").answers.responses == 8
    named = resolve(MINIMAL | {"compare": compare | {"baseline": "sft-entropy-a1-8"}}).compare
    assert named is not None
    assert named.baselines() == dict.fromkeys(settings.arms(), "sft-entropy-a1-8") | {"sft-entropy-a1-8": None}


def test_a_configuration_of_an_earlier_version_has_the_defaults_of_what_joined() -> None:
    values = resolve(MINIMAL).model_dump()
    joined = {
        "answers": ["grader", "grader_args", "grader_timeout_s", "responses"],
        "questions": ["extra_columns"],
        "sampling": ["backend"],
        "training": ["tokens_per_micro_batch"],
    }
    for section, keys in joined.items():
        for key in keys:
            del values[section][key]
    assert resolve(values) == resolve(MINIMAL)


def test_the_tables_of_the_documentation_have_every_setting() -> None:
    tables = settings_tables()
    assert "| `weighting.exponent` | number ≥ -100 and ≤ 100 | `1.0` | > 1 sharpens, between 0 and 1 flattens" in tables
    rows = [line.split("`")[1] for line in tables.splitlines() if line.startswith("| `")]
    assert len(rows) == len(set(rows)) and {"training.lora.rank", "compare.grids.suffix", "questions.path"} < set(rows)


def test_a_variant_is_the_run_with_its_overrides() -> None:
    settings = resolve(MINIMAL | {"variants": {"u": {"weighting.signal": "uniform", "training": {"epochs": 1}}}})
    variant = settings.variant("u")
    assert (variant.weighting.signal, variant.training.epochs, variant.variants) == ("uniform", 1, {})
    assert variant.training.learning_rate == settings.training.learning_rate


def test_a_relative_run_directory_outlives_the_working_copy_of_a_submitted_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "working_dir_files" / "_ray_pkg_1"
    (copy / "jobs").mkdir(parents=True)
    (copy / "jobs" / "q.jsonl").touch()
    monkeypatch.chdir(copy)
    assert storage.resolve_path("runs/a") == str(copy / "runs/a")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert storage.resolve_path("runs/a") == str(Path.home() / "runs/a")
    assert storage.resolve_path("jobs/q.jsonl") == str(copy / "jobs/q.jsonl")
    assert storage.resolve_path("s3://bucket/a") == "s3://bucket/a"


def test_the_documented_dump_is_yaml_with_every_key() -> None:
    dumped = yaml.safe_load(dump_documented(resolve(MINIMAL)))
    assert dumped == yaml.safe_load(config_file.dump(resolve(MINIMAL)))


def test_an_engine_has_a_gpu_for_each_shard() -> None:
    shards = ["engines.engine_args={tensor_parallel_size: 2, pipeline_parallel_size: 2}"]
    with pytest.raises(InputError, match=r"engines: num_gpus_per_engine 2: tensor_parallel_size times .* needs 4 GPUs"):
        resolve(MINIMAL, [*shards, "engines.num_gpus_per_engine=2"])
    for number in (0, 4):
        assert (
            resolve(MINIMAL, [*shards, f"engines.num_gpus_per_engine={number}"]).engines.num_gpus_per_engine == number
        )
