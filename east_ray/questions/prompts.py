"""Question -> prompt, and the tokenizers that render prompts and count their tokens."""

import functools
import socket
import threading
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from east_ray.config import InputError, PromptConfig
from east_ray.questions.source import rows_of, table_of
from east_ray.records import SET_ASIDE, SetAside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: transformers resolves its names lazily, which is not safe in threads: one may see a name that another is importing.
_importing = threading.Lock()


def load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model; raises InputError if there is none or it has no chat template."""
    with _importing:
        from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = pretrained(AutoTokenizer, model)
    if tokenizer.chat_template is None:
        raise InputError(f"model: the tokenizer of {model!r} has no chat template, so no question can be put to it")
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

    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def messages(question: str, prompt: PromptConfig) -> list[dict[str, str]]:
    """A question as chat messages: the system message, if there is one, and the user's."""
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": prompt.template.replace("{question}", question)}]


def render_prompt(tokenizer: "PreTrainedTokenizerBase", question: str, prompt: PromptConfig) -> str:
    """A question as the model reads it, up to where its response begins.

    The chat template writes the beginning-of-sequence token itself, so the text is tokenized without special tokens.
    """
    rendered = tokenizer.apply_chat_template(
        messages(question, prompt), add_generation_prompt=True, tokenize=False, **prompt.template_variables
    )
    assert isinstance(rendered, str)
    return rendered


def tokenize(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a rendered prompt: special tokens in the text become their ids, and none is added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@functools.lru_cache(maxsize=8)
def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The token with which the chat template ends a response, as a list of one id; empty if there is none.

    It need not be the end-of-sequence token: Gemma ends a turn with <end_of_turn> and a text with <eos>.
    """
    mark = "east ray was here"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    assert isinstance(rendered, str)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    after = [token for token in tokenize(tokenizer, rendered.rpartition(mark)[2]) if token in special]
    eos: int | None = tokenizer.eos_token_id
    return after[:1] or ([] if eos is None else [eos])


def prompts_within(
    questions: pa.Table, tokenizer: "PreTrainedTokenizerBase", prompt: PromptConfig, max_prompt_tokens: int
) -> tuple[pa.Table, pa.Table]:
    """The questions whose prompt has at most this many tokens, and the others as rows of records.SET_ASIDE."""
    aside: list[dict[str, Any]] = []
    fits: list[bool] = []
    for row in rows_of(questions):
        num_tokens = len(tokenize(tokenizer, render_prompt(tokenizer, row["question"], prompt)))
        fits.append(num_tokens <= max_prompt_tokens)
        if not fits[-1]:
            detail = f"{num_tokens} prompt tokens, room for {max_prompt_tokens}"
            aside.append(row | {"reason": SetAside.PROMPT_TOO_LONG, "detail": detail})
    return questions.filter(pa.array(fits, pa.bool_())), table_of(aside, SET_ASIDE)
