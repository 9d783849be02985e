"""Prompts of any model: text and chat, worked questions, one beginning, what ends a response, and sampling.params."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from sampling_runs import scripted
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from east_ray import compare, pipeline
from east_ray.config import Config, EnginePoolConfig, InputError, PromptConfig
from east_ray.config.files import resolve
from east_ray.console import Progress
from east_ray.plan.estimate import estimate
from east_ray.plan.facts import facts_of
from east_ray.questions.prompts import (
    end_of_turn,
    load_tokenizer,
    messages,
    prompts_within,
    render_prompt,
    tokenize,
    tokenize_prompt,
)
from east_ray.records import QUESTIONS
from east_ray.sampling import backends
from east_ray.sampling.backends import Decoding
from east_ray.sampling.backends.scripted import Scripted
from east_ray.sampling.backends.vllm import check_engine_args, sampling_params
from east_ray.sampling.pool import PoolSettings, requests
from east_ray.serving.settings import from_command_line
from east_ray.serving.settings import resolve as resolve_serving
from east_ray.storage import RunDirectory, load_run
from east_ray.training.dataset import tokenize_example

MODEL = str(Path(__file__).parent.parent / "jobs" / "quickstart" / "model")
TOKENIZER = load_tokenizer(MODEL)
BEGIN, END = TOKENIZER.bos_token, TOKENIZER.eos_token
WORKED = [{"question": "1 + 1?", "solution": " 2"}, {"question": "1 + 2?", "solution": " 3\n(three)"}]


def without_template() -> Any:
    tokenizer = load_tokenizer(MODEL)
    tokenizer.chat_template = None
    return tokenizer


def prompt(**settings: Any) -> PromptConfig:
    return PromptConfig.model_validate({"template": "Question: {question}\nAnswer:"} | settings)


def few_shot(**settings: Any) -> PromptConfig:
    return prompt(examples={"questions": WORKED}, **settings)


# ------------------------------------------------------------------------------------------------------- what is asked


def test_a_prompt_of_text_is_the_template_after_worked_questions_that_end_in_an_empty_line() -> None:
    for tokenizer, style in ((without_template(), "auto"), (TOKENIZER, "text")):
        assert render_prompt(tokenizer, "7 + 5?", prompt(style=style)) == "Question: 7 + 5?\nAnswer:"
        assert render_prompt(tokenizer, "7 + 5?", few_shot(style=style)) == (
            "Question: 1 + 1?\nAnswer: 2\n\nQuestion: 1 + 2?\nAnswer: 3\n(three)\n\nQuestion: 7 + 5?\nAnswer:"
        )


def test_in_a_chat_worked_questions_are_earlier_turns() -> None:
    asked = few_shot(template="Q: {question}", system="Think.")
    assert messages("7 + 5?", asked) == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "Q: 1 + 1?"},
        {"role": "assistant", "content": " 2"},
        {"role": "user", "content": "Q: 1 + 2?"},
        {"role": "assistant", "content": " 3\n(three)"},
        {"role": "user", "content": "Q: 7 + 5?"},
    ]
    for style in ("auto", "chat"):
        text = render_prompt(TOKENIZER, "7 + 5?", few_shot(template="Q: {question}", style=style))
        assert text == f"{BEGIN}<|user|>Q: 1 + 1?<|assistant|> 2{END}<|user|>Q: 1 + 2?<|assistant|> 3\n(three){END}" + (
            "<|user|>Q: 7 + 5?<|assistant|>"
        )
        assert tokenize_prompt(TOKENIZER, text, few_shot(style=style)) == tokenize(TOKENIZER, text)


def tokenizer_of_words(*, adds_begin: bool) -> Any:
    """Without a chat template. It marks the first word of a text, if no special token stands before it."""
    pieces = ["<s>", "</s>", "▁Q", "Q", "▁A", "A", "▁", "1", "\n"]
    inner = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [("▁", "Q"), ("▁", "A")]))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Metaspace(prepend_scheme="first")
    if adds_begin:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("adds_begin", [True, False])
@pytest.mark.parametrize("template", ["Q{question}", "<s>Q{question}"])
@pytest.mark.parametrize("worked", [[], [{"question": "1", "solution": "A"}]])
def test_a_text_begins_once(adds_begin: bool, template: str, worked: list[dict[str, str]]) -> None:
    """With the token that the tokenizer adds or the template names, and never twice."""
    tokenizer = tokenizer_of_words(adds_begin=adds_begin)
    asked = PromptConfig.model_validate(
        {"template": template, "examples": {"questions": worked} if worked else None, "style": "auto"}
    )
    text = render_prompt(tokenizer, "11", asked)
    ids = tokenize_prompt(tokenizer, text, asked)
    has_begin = adds_begin or template.startswith("<s>")
    body = ("Q1A\n\n" if worked else "") + "Q11"
    assert text == ("<s>" if has_begin else "") + body
    assert ids.count(0) == int(has_begin) and (ids[0] == 0) == has_begin
    begun = render_prompt(tokenizer, "<s>1", asked.model_copy(update={"template": "{question}", "examples": None}))
    assert begun == "<s>1", "a question that begins like a text"
    if adds_begin:  # as the tokenizer itself prepares a text, with its mark before the first word
        assert ids == tokenizer(body)["input_ids"] and ids[1] == 2


def test_a_response_to_a_text_ends_with_the_end_of_sequence() -> None:
    """Whether the model ended it, or a stop string, whose tokens the sampled ids still hold."""
    tokenizer, end = without_template(), TOKENIZER.eos_token_id
    assert end_of_turn(tokenizer, prompt()) == end_of_turn(TOKENIZER, few_shot(style="text")) == [end]
    said, stop = tokenize(tokenizer, " It is 12."), tokenize(tokenizer, "\n\nQuestion:")
    row = {"question": "7 + 5?", "chosen": " It is 12.", "chosen_finish_reason": "stop"}
    for sampled in ([*said, end], said, [*said, *stop], None):
        found = tokenize_example(row | {"chosen_token_ids": sampled}, tokenizer, prompt())
        assert found["chosen"] == [*said, end]
    cut = tokenize_example(row | {"chosen_finish_reason": "length", "chosen_token_ids": said}, tokenizer, prompt())
    assert cut["chosen"] == said
    # A stop string that begins inside a token leaves the text to be tokenized.
    whole = tokenize(tokenizer, " It is 12 apples")
    assert tokenizer.decode(whole[-1:]).endswith(" apples")
    row |= {"chosen": " It is 12 app", "chosen_token_ids": whole}
    assert tokenize_example(row, tokenizer, prompt())["chosen"] == [*tokenize(tokenizer, " It is 12 app"), end]


def test_a_table_s_responses_end_before_a_stop_string(tmp_path: Path) -> None:
    table = scripted(tmp_path, {"question": "1 + 1?", "responses": ["2\nQ: and\n\nA:", "3"]})["sampling"]
    backend = Scripted("m", EnginePoolConfig(), table["backend_args"])
    asked: list[dict[str, str]] = messages("1 + 1?", PromptConfig())
    told = backend.ask("m", asked, Decoding(2, 1.0, 9, stop=["\n\n", "\nQ:"])).result(9)
    assert [(one.text, one.finish_reason) for one in told] == [("2", "stop"), ("3", "stop")]


def test_worked_questions_count_in_the_length_of_a_prompt() -> None:
    questions = pa.table({"question_id": ["a"], "question": ["1?"], "reference_answer": ["1"]})
    alone = len(tokenize(TOKENIZER, "Question: 1?\nAnswer:"))
    for asked, fits in ((prompt(style="text"), 1), (few_shot(style="text"), 0)):
        found, aside = prompts_within(questions, TOKENIZER, asked, alone)
        assert (found.num_rows, aside["reason"].to_pylist()) == (fits, ["prompt_too_long"] * (1 - fits))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"system": "Think."},
            "prompt.system: a prompt of text has no system message; write these words into template",
        ),
        (
            {"template_variables": {"x": 1}},
            "prompt.template_variables: a prompt of text is rendered by no chat template",
        ),
        (
            {"style": "chat"},
            "prompt.style: chat, but the model's tokenizer has no chat template; set it to text or auto",
        ),
    ],
)
def test_what_a_text_does_not_have_is_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        render_prompt(without_template(), "1 + 1?", prompt(**settings))


# ----------------------------------------------------------------------------------------- the file of worked questions


def run(folder: Path, **sections: Any) -> Config:
    """A run that was read of its YAML file as a command reads it."""
    values = {"model": MODEL, "run_dir": str(folder / "run"), "questions": {"path": "q.jsonl"}} | sections
    (folder / "run.yaml").write_text(json.dumps(values))
    return load_run(str(folder / "run.yaml"))


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("content", "count", "message"),
    [
        (None, 1, "cannot read .*few.jsonl .*give the run directory"),
        (b"\xff", 1, r"cannot read .*few.jsonl \(not UTF-8 text\)"),
        (b"\n", None, "few.jsonl has 0 worked questions; expected at least 1"),
        (b'{"question": "1?", "solution": "1"}', 3, "few.jsonl has 1 worked questions; expected at least 3"),
        (b'\n{"question": "1?", "answer": "1"}', 1, "line 2: column 'solution' is missing; found 'answer', 'question'"),
        (b"{", 1, "line 1: not valid JSON"),
        (b"[]", 1, "line 1: expected a JSON object, found list"),
        (b'{"question": "1?", "solution": 1}', 1, "line 1: solution: 1 given, expected string"),
        (b'{"question": " ", "solution": "1"}', 1, "line 1: question: ' ' given, expected "),
    ],
)
@pytest.mark.parametrize("section", ["prompt", "evaluation"])
def test_a_bad_file_is_one_sentence(
    tmp_path: Path, content: bytes | None, count: int | None, message: str, section: str
) -> None:
    if content is not None:
        (tmp_path / "few.jsonl").write_bytes(content)
    asked: dict[str, Any] = {"examples": {"path": str(tmp_path / "few.jsonl"), "count": count}}
    with pytest.raises(InputError, match=f"{section}.*examples: .*{message}") as error:
        run(tmp_path, **{section: asked if section == "prompt" else {"prompt": asked}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("whole", [pipeline.run, compare.compare])
def test_a_program_s_own_configuration_has_its_file_read(
    tmp_path: Path, whole: Callable[[Config, Progress], str]
) -> None:
    missing = {"prompt": {"examples": str(tmp_path / "few.jsonl")}}
    values = {"model": MODEL, "run_dir": str(tmp_path / "run"), "questions": {"path": "q.jsonl"}} | missing
    if whole is compare.compare:
        values |= {"compare": {"seeds": [0, 1]}, "evaluation": {"questions": {"path": "q.jsonl"}}}
    with pytest.raises(InputError, match=r"prompt.examples: cannot read .*few.jsonl"):
        whole(resolve(values), Progress(Console(quiet=True)))


def test_a_run_keeps_the_worked_questions_and_not_the_file(tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    held_out = {"prompt": {"examples": {"path": write(file, *WORKED), "count": 1}, "template": "{question}"}}
    sections: dict[str, Any] = {"prompt": {"examples": str(file)}, "evaluation": held_out}
    config = run(tmp_path, **sections)
    directory = RunDirectory(config)
    (directory.round(0) / "stages").write_text("questions.json", "{}")  # the run has begun
    assert [one.model_dump() for one in config.prompt.worked_questions] == WORKED
    assert [one.model_dump() for one in config.in_evaluation().prompt.worked_questions] == WORKED[:1]
    assert "few.jsonl" not in (directory.folder.read_text("config.yaml") or "")
    moved = write(tmp_path / "moved.jsonl", *WORKED)
    RunDirectory(run(tmp_path, **sections | {"prompt": {"examples": moved}}))
    write(file, WORKED[0] | {"solution": " two " + "o" * 1000})
    with pytest.raises(InputError, match="another configuration") as error:
        RunDirectory(run(tmp_path, **sections))
    assert len(str(error.value)) < 1500, "long values are shortened"
    file.unlink()
    again = load_run(directory.uri)
    assert again.prompt == config.prompt and again.in_evaluation().prompt == config.in_evaluation().prompt
    with pytest.raises(InputError, match=r"prompt.examples: give exactly one of path and questions"):
        load_run(directory.uri, ["prompt.examples.path=other.jsonl"])


def test_the_keys_of_samples_depend_on_what_the_file_says(tmp_path: Path) -> None:
    row = {"question_id": "q1", "question": "1 + 1?", "reference_answer": "2"}
    table = pa.Table.from_pylist([{name: row.get(name) for name in QUESTIONS.names}], QUESTIONS)

    def key(decoding: Decoding, **asked: Any) -> str:
        config = run(tmp_path, prompt=asked)
        pool = PoolSettings(backends.load(config.sampling), {}, EnginePoolConfig(), config.prompt, decoding)
        (found,) = requests(table, {"base": MODEL}, pool)["key"].to_pylist()
        return str(found)

    plain = Decoding(2, 1.0, 9)
    first, second = (write(tmp_path / name, *WORKED) for name in ("first.jsonl", "second.jsonl"))
    other = write(tmp_path / "other.jsonl", WORKED[1], WORKED[0])
    same = {key(plain), key(plain, style="chat"), key(Decoding(2, 1.0, 9, stop=[], params={}))}
    assert len(same) == 1
    assert key(plain, examples=first) == key(plain, examples={"path": second, "count": 2})
    others = [key(plain, examples=first), key(plain, examples={"path": first, "count": 1}), key(plain, examples=other)]
    others += [key(plain, style="text"), key(Decoding(2, 1.0, 9, stop=["\n"]))]
    others += [key(Decoding(2, 1.0, 9, params={"min_p": value})) for value in (0.1, 0.2)]
    assert len({*same, *others}) == 8


# ------------------------------------------------------------------------- training, evaluation and serving follow suit


def test_training_sees_the_prompt_that_was_sampled_with_or_the_plain_one() -> None:
    values = {"model": MODEL, "run_dir": "r", "questions": {"path": "q.jsonl"}, "prompt": few_shot().model_dump()}
    row = {"question": "7 + 5?", "chosen": " 12", "chosen_finish_reason": "stop"}
    for which, text in (("same", render_prompt(without_template(), "7 + 5?", few_shot())),
                        ("plain", "Question: 7 + 5?\nAnswer:")):  # fmt: skip
        config = resolve(values, [f"training.prompt={which}", "variants={other: {training.prompt: plain}}"])
        found = tokenize_example(row, without_template(), config.training_prompt())
        assert found["prompt"] == tokenize(TOKENIZER, text)
        assert config.variant("other").training_prompt() == prompt()
        assert config.prompt == few_shot(), "sampling has them in any case"


def test_evaluation_asks_as_sampling_unless_it_has_settings_of_its_own() -> None:
    values: dict[str, Any] = {"model": MODEL, "run_dir": "r", "questions": {"path": "q.jsonl"}}
    values |= {"prompt": few_shot().model_dump(), "sampling": {"stop": ["\n\n"], "params": {"min_p": 0.1}}}
    same = resolve(values).in_evaluation()
    assert (same.prompt, same.sampling) == (few_shot(), resolve(values).sampling)
    values["evaluation"] = {"prompt": {"examples": None, "style": "text"}, "stop": [], "params": {"bad_words": ["x"]}}
    own = resolve(values).in_evaluation()
    assert own.prompt == prompt(style="text")
    assert (own.sampling.stop, own.sampling.params) == ([], {"bad_words": ["x"]})
    with pytest.raises(InputError, match=r"evaluation.prompt.templat: unknown key; did you mean template\?"):
        resolve(values, ["evaluation.prompt={templat: x}"])


def test_a_plan_reckons_with_the_worked_questions_where_they_are(tmp_path: Path) -> None:
    """Each engine reads them, and a training on the plain prompt does not."""
    file = write(tmp_path / "q.jsonl", {"question": "1 + 1?", "reference_answer": "2"})
    values = {"model": MODEL, "run_dir": str(tmp_path / "run"), "questions": {"path": file}}
    values |= {"prompt": few_shot().model_dump()}
    configs = [
        resolve(values, [one]) for one in ("training.prompt=plain", "training.prompt=same", "prompt.examples=null")
    ]
    prompts = [facts_of(config).prompt_tokens.value or 0 for config in configs]
    worked = 2 * len("Question: \nAnswer:") + len("1 + 1? 2") + len("1 + 2? 3\n(three)")
    assert prompts[0] == prompts[1] == prompts[2] + worked / 4
    plain, same, without = (
        next(one.tokens for one in estimate(config).stages if one.name == "training") for config in configs
    )
    assert plain == without and same is not None and plain is not None and same > plain


def test_a_served_model_is_asked_as_it_was_trained(tmp_path: Path) -> None:
    file = write(tmp_path / "few.jsonl", *WORKED)
    for which, number in (("same", 2), ("plain", 0)):
        folder = tmp_path / which
        folder.mkdir()
        config = run(folder, prompt={"examples": file}, training={"prompt": which}, sampling={"stop": ["\n\n"]})
        (RunDirectory(config).round(0) / "stages").write_text("training.json", "{}")
        for source in (config.run_dir, str(folder / "run.yaml")):
            found = resolve_serving(from_command_line(source, []))
            assert found.prompt is not None and len(found.prompt.worked_questions) == number
            assert found.stop == ["\n\n"]
    own = resolve_serving(from_command_line(MODEL, [f"prompt.examples={file}", "stop=[Q]"]))
    assert own.prompt is not None and len(own.prompt.worked_questions) == 2 and own.stop == ["Q"]


# ------------------------------------------------------------------------------------------------------ sampling.params


def test_further_arguments_and_stop_strings_reach_vllm() -> None:
    further = {"min_p": 0.1, "repetition_penalty": 1.1, "structured_outputs": {"regex": "[0-9]+"}}
    params = sampling_params(Decoding(3, 0.7, 17, seed=7, stop=["\n\n", "Q:"], params=further), first=2)
    assert (params.n, params.seed, params.stop, params.min_p) == (3, 9, ["\n\n", "Q:"], 0.1)
    assert params.repetition_penalty == 1.1 and params.structured_outputs.regex == "[0-9]+"
    with pytest.raises(InputError, match=r"sampling.params: vLLM refuses the decoding \(min_p must be in"):
        sampling_params(Decoding(1, 1.0, 8, params={"min_p": 7}))


def test_every_argument_of_vllm_is_known_from_its_source_alone() -> None:
    from vllm import AsyncEngineArgs, SamplingParams

    check_engine_args("engine_args", {field.name: None for field in dataclasses.fields(AsyncEngineArgs)})
    taken = resolve({"model": "m", "run_dir": "r", "questions": {"path": "q"}}).sampling
    refused = []
    for name in inspect.signature(SamplingParams).parameters:
        try:
            backends.load(taken).checked_params({name: None})
        except InputError:
            refused.append(name)
    assert refused == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"min_q": 0.1}, r"sampling.params: vLLM's SamplingParams has no argument 'min_q'; did you mean min_p\?"),
        ({"n": 4}, "sampling.params: n has a setting of its own: responses_per_question"),
        ({"seed": 4}, "sampling.params: seed has a setting of its own: seed, with sampling.seeded"),
        ({"stop": ["x"]}, "sampling.params: stop has a setting of its own: stop"),
        ({"detokenize": False}, "sampling.params: detokenize would change what the engine returns"),
        ({"_all_stop_token_ids": [1]}, "sampling.params: _all_stop_token_ids would change"),
    ],
)
@pytest.mark.parametrize("section", ["sampling", "evaluation"])
def test_an_unknown_parameter_is_one_sentence_before_anything_is_asked(
    tmp_path: Path, params: dict[str, Any], message: str, section: str
) -> None:
    questions = {"path": write(tmp_path / "q.jsonl", {"question": "1?", "reference_answer": "1"})}
    with pytest.raises(InputError, match=message.replace("sampling.params", r"(sampling|evaluation).params")) as error:
        config = run(tmp_path, questions=questions, **{section: {"params": params}})
        pipeline.check_inputs(config, RunDirectory(config))
    assert "\n" not in str(error.value)


def test_an_unknown_argument_of_the_engine_is_one_sentence_before_an_engine_starts(tmp_path: Path) -> None:
    questions = {"path": write(tmp_path / "q.jsonl", {"question": "1?", "reference_answer": "1"})}
    said = r"engine_args: vLLM's engine has no argument 'max_model_length'; did you mean max_model_len\?$"
    config = run(tmp_path, questions=questions, engines={"engine_args": {"max_model_length": 64}})
    with pytest.raises(InputError, match=rf"^engines\.{said}"):
        pipeline.check_inputs(config, RunDirectory(config))
    with pytest.raises(InputError, match=f"^{said}"):
        resolve_serving(from_command_line(MODEL, ["engine_args.max_model_length=64"]))


def test_the_engines_that_evaluate_are_asked_for_their_parameters_before_an_endpoint_samples(tmp_path: Path) -> None:
    questions = {"path": write(tmp_path / "q.jsonl", {"question": "1?", "reference_answer": "1"})}
    there = {"endpoint": {"url": "http://127.0.0.1:1/v1", "model": "m"}}
    sampling = {"backend": "endpoint", "params": {"mirostat": 2}}
    sections = {"questions": questions, "engines": there, "evaluation": {"questions": questions}}
    config = run(tmp_path, sampling=sampling, **sections)
    with pytest.raises(InputError, match=r"^sampling\.params: vLLM has no mirostat|^sampling\.params.*mirostat"):
        pipeline.check_inputs(config, RunDirectory(config))


def test_a_backend_of_chat_messages_refuses_a_text_before_anything_is_asked(tmp_path: Path) -> None:
    questions = {"path": write(tmp_path / "q.jsonl", {"question": "1?", "reference_answer": "1"})}
    config = run(tmp_path, questions=questions, prompt={"style": "text"}, **scripted(tmp_path / "table"))
    with pytest.raises(InputError, match=r"prompt.style: text, but this backend is asked with chat messages"):
        pipeline.check_inputs(config, RunDirectory(config))
