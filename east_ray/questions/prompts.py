"""Question -> prompt, and the tokenizers that render prompts, count their tokens, and say how a response ends."""

import bisect
import functools
import socket
import threading
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

import pyarrow as pa

from east_ray.config import InputError, PromptConfig
from east_ray.records import SET_ASIDE, SetAside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: transformers resolves its names lazily, which is not safe in threads: one may see a name that another is importing.
_importing = threading.Lock()


def load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model; raises InputError if there is none."""
    with _importing:
        from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = pretrained(AutoTokenizer, model)
    return tokenizer


def pretrained(auto_class: Any, model: str) -> Any:
    """`auto_class.from_pretrained(model)`; raises InputError if the model is neither a folder nor on the hub."""
    try:
        return auto_class.from_pretrained(model, local_files_only=not _hub_answers())
    except (OSError, ValueError) as error:
        raise InputError(
            f"model: {model!r} is neither a folder with a Hugging Face model nor a hub model that can be reached"
        ) from error


@functools.cache
def _hub_answers() -> bool:
    """Whether the hub's name can be resolved here. If not, a request would fail only after a minute of retries."""
    from huggingface_hub import constants

    try:
        return bool(urllib.request.getproxies() or socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443))
    except OSError:
        return False


def style_of(tokenizer: "PreTrainedTokenizerBase", prompt: PromptConfig) -> Literal["chat", "text"]:
    """How a question is put to the model of this tokenizer; `auto` is text where it has no chat template."""
    if prompt.style == "auto":
        return "text" if tokenizer.chat_template is None else "chat"
    return prompt.style


def messages(question: str, prompt: PromptConfig) -> list[dict[str, str]]:
    """A question as chat messages: the system message if there is one, the worked questions as turns, the question.

    Raises InputError for a prompt of text, which is no conversation.
    """
    if prompt.style == "text":
        raise InputError("prompt.style: text, but this backend is asked with chat messages; set it to auto or chat")
    turns = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for one in prompt.worked_questions:
        turns.append({"role": "user", "content": _filled_in(prompt, one.question)})
        turns.append({"role": "assistant", "content": one.solution})
    return [*turns, {"role": "user", "content": _filled_in(prompt, question)}]


def _filled_in(prompt: PromptConfig, question: str) -> str:
    return prompt.template.replace("{question}", question)


def text_prompt(question: str, prompt: PromptConfig) -> str:
    """A question as text: each worked question with its solution and an empty line, then the question, all alike."""
    worked = [f"{_filled_in(prompt, one.question)}{one.solution}\n\n" for one in prompt.worked_questions]
    return "".join(worked) + _filled_in(prompt, question)


def render_prompt(tokenizer: "PreTrainedTokenizerBase", question: str, prompt: PromptConfig) -> str:
    """A question as the model reads it, up to where its response begins, the beginning-of-sequence token included.

    The chat template writes that token itself; before a text it stands if the tokenizer adds it, or `prompt.template`
    begins with it. Raises InputError if the template refuses the messages, as some refuse a system message, or if the
    prompt has parts that its style does not have.
    """
    from jinja2 import TemplateError

    if style_of(tokenizer, prompt) == "text":
        return _as_text(tokenizer, question, prompt)
    if tokenizer.chat_template is None:
        raise InputError("prompt.style: chat, but the model's tokenizer has no chat template; set it to text or auto")
    variables = prompt.template_variables
    asked = messages(question, prompt)
    try:
        return str(tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False, **variables))
    except TemplateError as error:
        system, said = "a" if prompt.system else "no", (str(error).splitlines() or ["no message"])[0]
        raise InputError(
            f"prompt: the model's chat template refuses the messages ({said}); prompt.system gives them {system} "
            "system message, and prompt.template_variables are the template's variables"
        ) from error


def _as_text(tokenizer: "PreTrainedTokenizerBase", question: str, prompt: PromptConfig) -> str:
    """The text of a prompt, after the beginning-of-sequence token if the tokenizer adds it."""
    if said := prompt.problem_of_text():
        raise InputError(f"prompt.{said} (the model's tokenizer has no chat template)")
    begin = tokenizer.bos_token or ""
    has_begin = bool(begin) and prompt.template.startswith(begin)
    if has_begin:  # it stands once, not before each worked question
        prompt = prompt.model_copy(update={"template": prompt.template.removeprefix(begin)})
    text = text_prompt(question, prompt)
    begins = has_begin or tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return begin + text if begins and not text.startswith(begin) else text


def tokenize_prompt(tokenizer: "PreTrainedTokenizerBase", text: str, prompt: PromptConfig) -> list[int]:
    """Token ids of a prompt that `render_prompt` has rendered.

    The beginning of a text is left to the tokenizer where it adds it, as in the model's own training: some put a space
    before the first word after a beginning that they have added themselves, and none after one that they have read.
    """
    adds_it = style_of(tokenizer, prompt) == "text" and tokenizer("")["input_ids"] == [tokenizer.bos_token_id]
    if adds_it and text.startswith(tokenizer.bos_token):
        return list(tokenizer(text.removeprefix(tokenizer.bos_token))["input_ids"])
    return tokenize(tokenizer, text)


def tokenize(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a text: special tokens in it become their ids, and none is added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_of_turn(tokenizer: "PreTrainedTokenizerBase", prompt: PromptConfig) -> list[int]:
    """The token with which the chat template ends a response, as a list of one id; empty if there is none.

    It need not be the end-of-sequence token: Gemma ends a turn with <end_of_turn> and a text with <eos>. It is the
    first special token that the template writes after a response; without one, the first other token that was added to
    the vocabulary, and then the end-of-sequence token. That one is meant too where the template renders no response,
    and where the prompt is text.
    """
    if style_of(tokenizer, prompt) == "text":
        return _end_of_sequence(tokenizer)
    return list(_end_of_turn(tokenizer, prompt.plain().model_dump_json()))


def _end_of_sequence(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return [token for token in [tokenizer.eos_token_id] if token is not None]


@functools.lru_cache(maxsize=8)
def _end_of_turn(tokenizer: "PreTrainedTokenizerBase", prompt_json: str) -> list[int]:
    from jinja2 import TemplateError

    prompt, mark = PromptConfig.model_validate_json(prompt_json), "east ray was here"
    turns = [*messages("?", prompt), {"role": "assistant", "content": mark}]
    try:
        whole = str(tokenizer.apply_chat_template(turns, tokenize=False, **prompt.template_variables))
    except TemplateError:  # a template for single questions
        whole = ""
    after = tokenize(tokenizer, whole.rpartition(mark)[2] if mark in whole else "")
    added = tokenizer.added_tokens_decoder
    found = sorted((token for token in after if token in added), key=lambda token: not added[token].special)
    return found[:1] or _end_of_sequence(tokenizer)


def response_ids(
    tokenizer: "PreTrainedTokenizerBase", text: str, end: Sequence[int], sampled: Sequence[int] | None = None
) -> list[int]:
    """Token ids of a response: those that were sampled, if they spell its text with this tokenizer, else the text's.

    `end` is `end_of_turn` for a response that ended by itself, and empty for one that was cut. The response gets it
    unless its sampled ids end in a special token already, as those of a model that ends a turn in several ways.
    """
    ids = None if sampled is None else _spelling(tokenizer, text, sampled)
    if ids is None:
        return [*tokenize(tokenizer, text), *end]
    added = tokenizer.added_tokens_decoder
    return ids if end and ids and ids[-1] in added and added[ids[-1]].special else [*ids, *end]


def _spelling(tokenizer: "PreTrainedTokenizerBase", text: str, sampled: Sequence[int]) -> list[int] | None:
    """The sampled ids as far as they spell the text; None if they do not.

    They go on after the text where a stop string ended it. They spell another text if the string begins inside a token,
    or if they are of another tokenizer. Special tokens are not part of a text. Neither are a first space, which some
    tokenizers drop, and a character that was cut in its middle.
    """

    def plain(spelled: str) -> str:
        return spelled.lstrip(" ").rstrip("\ufffd")

    @functools.cache
    def spelled(count: int) -> str:
        return plain(tokenizer.decode(sampled[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    wanted, count = plain(text), len(sampled)
    if spelled(count) != wanted:
        count = bisect.bisect_left(range(count), len(wanted), key=lambda some: len(spelled(some)))
    return list(sampled[:count]) if spelled(count) == wanted else None


def prompts_within(
    questions: pa.Table, tokenizer: "PreTrainedTokenizerBase", prompt: PromptConfig, max_prompt_tokens: int
) -> tuple[pa.Table, pa.Table]:
    """The questions whose prompt has at most this many tokens, and the others as rows of records.SET_ASIDE."""
    texts = questions["question"].to_pylist()
    sizes = [len(tokenize_prompt(tokenizer, render_prompt(tokenizer, text, prompt), prompt)) for text in texts]
    aside = [
        row | {"reason": SetAside.PROMPT_TOO_LONG, "detail": f"{size} prompt tokens, room for {max_prompt_tokens}"}
        for row, size in zip(questions.to_pylist(), sizes, strict=True)
        if size > max_prompt_tokens
    ]
    fits = pa.array([size <= max_prompt_tokens for size in sizes], pa.bool_())
    return questions.filter(fits), pa.Table.from_pylist(aside, SET_ASIDE)
