"""Question -> prompt, and the tokenizers that render prompts and count their tokens."""

import functools
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import pyarrow as pa

from east_ray.config import InputError, PromptConfig
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

    try:
        return bool(urllib.request.getproxies() or socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443))
    except OSError:
        return False


def messages(question: str, prompt: PromptConfig) -> list[dict[str, str]]:
    """A question as chat messages: the system message, if there is one, and the user's."""
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": prompt.template.replace("{question}", question)}]


def render_prompt(tokenizer: "PreTrainedTokenizerBase", question: str, prompt: PromptConfig) -> str:
    """A question as the model reads it, up to where its response begins.

    The chat template writes the beginning-of-sequence token itself, so the text is tokenized without special tokens.
    """
    variables = prompt.template_variables
    asked = messages(question, prompt)
    return str(tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False, **variables))


def tokenize(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a rendered prompt: special tokens in the text become their ids, and none is added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@functools.lru_cache(maxsize=8)
def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The token with which the chat template ends a response, as a list of one id; empty if there is none.

    It need not be the end-of-sequence token: Gemma ends a turn with <end_of_turn> and a text with <eos>.
    """
    mark = "east ray was here"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
    after = tokenize(tokenizer, str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(mark)[2])
    added = tokenizer.added_tokens_decoder
    special = [token for token in after if token in added and added[token].special]
    return special[:1] or [token for token in [tokenizer.eos_token_id] if token is not None]


def prompts_within(
    questions: pa.Table, tokenizer: "PreTrainedTokenizerBase", prompt: PromptConfig, max_prompt_tokens: int
) -> tuple[pa.Table, pa.Table]:
    """The questions whose prompt has at most this many tokens, and the others as rows of records.SET_ASIDE."""
    texts = questions["question"].to_pylist()
    sizes = [len(tokenize(tokenizer, render_prompt(tokenizer, text, prompt))) for text in texts]
    aside = [
        row | {"reason": SetAside.PROMPT_TOO_LONG, "detail": f"{size} prompt tokens, room for {max_prompt_tokens}"}
        for row, size in zip(questions.to_pylist(), sizes, strict=True)
        if size > max_prompt_tokens
    ]
    fits = pa.array([size <= max_prompt_tokens for size in sizes], pa.bool_())
    return questions.filter(fits), pa.Table.from_pylist(aside, SET_ASIDE)
