"""Backends: the scripted one without Ray, vLLM's requests and keys, and what is refused."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from sampling_runs import ENGINES, questions, scripted, settings

from east_ray.config import Config, EnginePoolConfig, InputError, PromptConfig, SamplingConfig
from east_ray.console import Progress
from east_ray.questions.prompts import messages
from east_ray.records import QUESTIONS
from east_ray.sampling import backends
from east_ray.sampling.backends import Alone, Decoding, EngineDiedError, RequestRefusedError, Response
from east_ray.sampling.backends.scripted import Scripted
from east_ray.sampling.backends.vllm import VLLM, sampling_params
from east_ray.sampling.pool import PoolSettings, requests

SAMPLED = Decoding(responses_per_question=4, temperature=1.0, max_tokens=8)
ON_CPU = EnginePoolConfig.model_validate(ENGINES)
GREEDY = Decoding(responses_per_question=2, temperature=0.0, max_tokens=8)


def of(folder: Path, *rows: dict[str, Any], **args: Any) -> Scripted:
    given = scripted(folder, *rows, **args)["sampling"]["backend_args"]
    return Scripted("m", EnginePoolConfig(), Scripted.checked_args(given))


def asked(text: str) -> list[dict[str, str]]:
    return messages(text, PromptConfig(system="Think of 1 + 1?", template="Answer this: {question} Go."))


# ----------------------------------------------------------------------------------------------------------- scripted


def test_responses_come_from_the_table_in_turn(tmp_path: Path) -> None:
    cut = {"text": "b", "finish_reason": "length", "num_tokens": 8}
    backend = of(
        tmp_path,
        {"question": "2 + 2?", "responses": ["a", cut, "c"]},
        {"question": "2 + 2? Really", "responses": ["long"]},
        {"question": "1 + 1?", "responses": ["of the system message"]},
    )
    a, b, c = Response("a", "stop"), Response("b", "length", 8), Response("c", "stop")
    assert backend.ask("m", asked("2 + 2?"), SAMPLED).result(9) == [a, b, c, a]
    assert backend.ask("m", asked("2 + 2?"), SAMPLED, first=4).result(9) == [b, c, a, b]
    assert backend.ask("m", asked("2 + 2?"), GREEDY, first=1).result(9) == [a, a]
    assert backend.ask("m", asked("2 + 2? Really"), GREEDY).result(9)[0].text == "long"
    assert backend.ask("m", asked("9?"), GREEDY).result(9)[0].text == "\\boxed{1}"
    assert not backend.has_failed


def test_lengths_may_be_drawn(tmp_path: Path) -> None:
    def lengths(question: str, count: int, first: int = 0) -> list[int]:
        decoding = Decoding(count, temperature=1.0, max_tokens=8)
        found = backend.ask("m", asked(question), decoding, first=first).result(9)
        assert all(one.text == "word " * (one.num_tokens or 0) + "\\boxed{1}" for one in found)
        return [one.num_tokens or 0 for one in found]

    backend = of(tmp_path, default={"responses": ["\\boxed{1}"], "drawn_tokens": 50})
    drawn = lengths("9?", 400)
    assert (min(drawn), max(drawn)) == (1, 50) and 5 < sorted(drawn)[200] < 10, "the median is about the root of 51"
    assert lengths("9?", 200) + lengths("9?", 200, first=200) == drawn != lengths("8?", 400)
    greedy = backend.ask("m", asked("9?"), GREEDY).result(9)
    assert greedy[0] == greedy[1] and greedy[0].num_tokens == drawn[0]


def test_a_question_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    backend = of(tmp_path, {"question": "no", "refuses": "too hard"}, default=None)
    for text, reason in (("1?", "the question is not in the table"), ("no", "too hard")):
        with pytest.raises(RequestRefusedError, match=reason):
            backend.ask("m", asked(text), GREEDY).result(9)


def test_an_engine_that_dies_fails_all_that_wait_and_dies_no_oftener_than_it_should(tmp_path: Path) -> None:
    rows = [{"question": "deadly", "dies": "engine", "times": 1, "responses": ["alive"]}]
    first = of(tmp_path, *rows, delay_s=0.2)
    futures = [first.ask("m", asked(text), GREEDY) for text in ("1?", "deadly", "2?")]
    assert futures[0].result(9)
    for future in (*futures[1:], first.ask("m", asked("3?"), GREEDY)):
        with pytest.raises(EngineDiedError, match="the table makes it die"):
            future.result(9)
    assert first.has_failed
    assert of(tmp_path, *rows).ask("m", asked("deadly"), GREEDY).result(9)[0].text == "alive"


def served_alone(backend: backends.Backend, prompts: list[Any], decoding: Decoding) -> None:
    """Ask three prompts, the second alone, and check that no other is in flight beside it."""
    seen: list[str] = []
    alone = Alone(lambda: seen.append("begin"))

    def note(name: str) -> Callable[[Any], None]:
        return lambda future: seen.append(name)

    futures = []
    for name, prompt, beside in zip("abc", prompts, (None, alone, None), strict=True):
        futures.append(backend.ask(backend.model, prompt, decoding, alone=beside))
        futures[-1].add_done_callback(note(name))
    futures[1].result(60)
    deadline = time.monotonic() + 10
    while "b" not in seen and time.monotonic() < deadline:  # a future's callbacks run after its result is there
        time.sleep(0.01)
    assert seen == ["a", "begin", "b"] and not futures[2].done()
    alone.settled.set()
    futures[2].result(60)


def test_a_request_may_be_served_alone(tmp_path: Path) -> None:
    served_alone(of(tmp_path), [asked(text) for text in ("1?", "2?", "3?")], GREEDY)


def test_the_identity_is_that_of_the_responses(tmp_path: Path) -> None:
    def identity(folder: str, *rows: dict[str, Any], **args: Any) -> str:
        return Scripted.identity("m", of(tmp_path / folder, *rows, **args).args)

    row = {"question": "1?", "responses": ["1"]}
    assert identity("a", row) == identity("b", row | {"dies": "engine", "times": 1}, delay_s=1)
    others = [identity("c", row | {"responses": ["2"]}), identity("d", row, default={"responses": ["3"]})]
    others.append(identity("e", row | {"drawn_tokens": 5}))
    assert len({identity("a", row), *others}) == 4


@pytest.mark.parametrize(
    ("args", "table", "message"),
    [
        ({}, None, "sampling.backend_args.table: missing; this key is required"),
        ({"tabel": "x"}, "", "sampling.backend_args.tabel: unknown key; did you mean table?"),
        ({"delay_s": -1}, "", "sampling.backend_args.delay_s: -1 given, expected greater than or equal to 0"),
        ({}, "{}", "table.jsonl, line 1: question: missing"),
        ({}, '\n{"question": "a", "dies": "often"}', "table.jsonl, line 2: dies: 'often' given, expected 'engine'"),
        ({}, "nonsense", "table.jsonl, line 1"),
        ({}, '{"question": "a", "dies": "engine", "times": 1}', "sampling.backend_args.state: missing; rows with"),
        ({"table": "nowhere.jsonl"}, "", "sampling.backend_args.table: cannot read nowhere.jsonl"),
    ],
)
def test_a_bad_script_is_one_sentence(tmp_path: Path, args: dict[str, Any], table: str | None, message: str) -> None:
    if table is not None:
        (tmp_path / "table.jsonl").write_text(table)
        args = {"table": str(tmp_path / "table.jsonl")} | args
    with pytest.raises(InputError) as error:
        backends.load(SamplingConfig(backend="scripted", backend_args=args))
    assert message in str(error.value) and "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------------------------- the door


OWN = """
from east_ray.sampling.backends import Backend

class Lacks(Backend):
    pass

class Other:
    pass
"""


@pytest.mark.parametrize(
    ("backend", "args", "message"),
    [
        ("own_backend:Lacks", {}, "sampling.backend: own_backend:Lacks lacks ask"),
        ("own_backend:Other", {}, "own_backend:Other is no class derived from east_ray.sampling.backends.Backend"),
        ("own_backend:None_", {}, "sampling.backend: own_backend:None_ cannot be loaded"),
        (
            "vllm",
            {"dtype": "half"},
            "sampling.backend_args: vllm has none, found dtype; its own are engines.engine_args",
        ),
    ],
)
def test_a_backend_that_does_not_fit_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, args: dict[str, Any], message: str
) -> None:
    (tmp_path / "own_backend.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        backends.load(SamplingConfig(backend=backend, backend_args=args))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_settings_and_table_name_the_same_backends() -> None:
    (part,) = [mark for mark in SamplingConfig.model_fields["backend"].metadata if hasattr(mark, "names")]
    assert set(part.names) == set(backends.BACKENDS)


# --------------------------------------------------------------------------------------------------------------- vLLM


def test_keys_are_those_of_version_0_1_0(tmp_path: Path) -> None:
    """Computed with the code of 0.1.0, so that its run directories resume without sampling anything again."""
    (tmp_path / "config.json").write_text('{"a": 1}')
    row = {"question_id": "q1", "question": "1 + 1?", "reference_answer": "2"}
    table = pa.Table.from_pylist([{name: row.get(name) for name in QUESTIONS.names}], QUESTIONS)

    def key(prompt: PromptConfig, decoding: Decoding) -> str:
        pool = PoolSettings(VLLM, {}, EnginePoolConfig(), prompt, decoding, keep_token_ids=True)
        (found,) = requests(table, {"base": str(tmp_path)}, pool)["key"].to_pylist()
        return str(found)

    prompt = PromptConfig(system="Think.", template="Q: {question}", template_variables={"x": 1})
    assert key(prompt, Decoding(128, 1.0, 1024, top_p=0.9, top_k=5, seed=7)) == "08cfbad0cc8b6e476ea0e20e5e6b8242"
    assert key(PromptConfig(), Decoding(1, 0.0, 64, logprobs=True)) == key(PromptConfig(), Decoding(1, 0.0, 64))
    assert (
        key(PromptConfig(), Decoding(responses_per_question=1, temperature=0.0, max_tokens=64))
        == "5bbaa7c6ca414dfcc5f5df7d4ae96706"
    )


def test_what_is_asked_of_vllm() -> None:
    decoding = Decoding(3, 0.7, 17, top_p=0.9, top_k=5, seed=7)
    params = sampling_params(decoding, first=2)
    assert (params.n, params.temperature, params.max_tokens) == (3, 0.7, 17)
    assert (params.top_p, params.top_k, params.seed) == (0.9, 5, 9)
    unseeded = sampling_params(Decoding(1, 1.0, 8), first=2)
    assert (unseeded.top_p, unseeded.top_k, unseeded.seed) == (1.0, 0, None)
    assert unseeded.logprobs is None and sampling_params(Decoding(1, 1.0, 8, logprobs=True)).logprobs == 0


def test_only_an_engine_on_a_cpu_works_in_the_actor_s_process_and_takes_the_actor_s_cpus() -> None:
    on_cpu = VLLM.environment(EnginePoolConfig(num_cpus_per_engine=3.5))
    assert (on_cpu["VLLM_ENABLE_V1_MULTIPROCESSING"], on_cpu["OMP_NUM_THREADS"]) == ("0", "3")
    assert VLLM.environment(EnginePoolConfig(num_cpus_per_engine=0.5))["OMP_NUM_THREADS"] == "1"
    for told in ({"num_gpus_per_engine": 0.5}, {"engine_args": {"distributed_executor_backend": "ray"}}):
        on_gpu = VLLM.environment(EnginePoolConfig.model_validate(told))
        assert not {"VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS"} & on_gpu.keys()


def test_settings_of_a_run_reach_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sampling.top_p`, `top_k` and the seeds of the rounds, as the stage hands them to the backend."""
    from east_ray.sampling import stage
    from east_ray.storage import RunDirectory
    from east_ray.storage.rounds import Round

    given: list[Decoding] = []
    kept: list[bool] = []

    def ask_models(*arguments: Any) -> float:
        given.append(arguments[6])
        arguments[7].update(num_questions=1)
        kept.append(arguments[8])
        return 0.0

    monkeypatch.setattr(stage, "ask_models", ask_models)
    sections = scripted(tmp_path / "script")
    sections["sampling"] |= {"top_p": 0.8, "top_k": 3, "temperature": 0.5, "max_tokens": 9, "responses_per_question": 5}

    def decoding(number: int, **changes: Any) -> Decoding:
        config: Config = settings(tmp_path / f"run-{len(given)}", **sections, **changes)
        stage.sample_responses(Round(config, RunDirectory(config), number, "m", "m", Progress(Console(quiet=True))))
        return given[-1]

    assert decoding(0, seed=4) == Decoding(5, 0.5, 9, top_p=0.8, top_k=3, seed=4)
    seeds = [decoding(number, seed=seed).seed for number in (0, 1, 2) for seed in (0, 1, 2)]
    assert len(set(seeds)) == 9 and seeds[3] == 1_000_003
    sections["sampling"] |= {"seeded": False, "keep_token_ids": False, "logprobs": True}
    assert decoding(0).seed is None and given[-1].logprobs
    assert kept == [True] * 10 + [False]
    sections["sampling"]["seeded"], sections["engines"]["num_gpus_per_engine"] = "auto", 1
    assert decoding(0).seed is None


def test_first_continues_a_question_and_top_k_reaches_the_engine(quickstart: Path, local_ray: None) -> None:
    """On the real engine, in a process of its own as in the pool."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    prompt = PromptConfig()
    texts: list[str] = questions(3)["question"].to_pylist()

    @ray.remote(num_cpus=0.5, runtime_env={"env_vars": {**VLLM.environment(ON_CPU), **ENGINES["env"]}})
    def responses() -> Any:
        from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize

        model = str(quickstart / "model")
        tokenizer = load_tokenizer(model)
        ids = [tokenize(tokenizer, render_prompt(tokenizer, text, prompt)) for text in texts]
        seeded = Decoding(32, 1.0, 16, seed=5, logprobs=True)
        backend = VLLM(model, VLLM.settings_for(ON_CPU, seeded), {})
        every = backend.ask(model, ids[0], seeded).result(120)
        begin = backend.ask(model, ids[0], Decoding(8, 1.0, 16, seed=5)).result(120)
        rest = backend.ask(model, ids[0], Decoding(24, 1.0, 16, seed=5), first=8).result(120)
        narrow = [
            backend.ask(model, ids[1], Decoding(16, 2.0, 16, seed=5, **one))
            for one in ({"top_k": 1}, {}, {"top_p": 1e-6})
        ]
        served_alone(backend, ids, Decoding(2, 1.0, 16, seed=5))
        assert all(one.logprob is None for one in (*begin, *rest))
        return every, begin + rest, [len({one.text for one in future.result(120)}) for future in narrow]

    every, parts, distinct = ray.get(responses.remote())
    assert all(one.num_tokens == len(one.token_ids) and one.logprob < 0 for one in every)
    same = sum(one.text == other.text for one, other in zip(every, parts, strict=True))
    assert same >= 30, "the last bit of a sum depends on the batch, no more"
    assert len({one.text for one in every}) > 4
    assert distinct[0] == distinct[2] == 1 < distinct[1]
