"""Weighted examples -> token ids -> the global steps of training -> one worker's micro-batches. Pure functions."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from east_ray.config import PromptConfig
from east_ray.questions.prompts import end_of_turn, render_prompt, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: What the loop reads: one row per example and epoch, in the order of training.
TOKENIZED = pa.schema(
    [
        pa.field("epoch", pa.int32()),
        pa.field("order", pa.string()),  # sorts an epoch's examples in a random order that the seed fixes
        pa.field("question_id", pa.string()),
        pa.field("weight", pa.float64()),
        pa.field("prompt", pa.list_(pa.int32())),  # token ids
        pa.field("chosen", pa.list_(pa.int32())),  # token ids, the end-of-turn token included
        pa.field("rejected", pa.list_(pa.int32())),  # null where the objective does not need it
        pa.field("mismatched", pa.list_(pa.int32())),  # the chosen response of another question, likewise
    ]
)

Row = Mapping[str, Any]


def tokenize_example(
    row: Row, tokenizer: "PreTrainedTokenizerBase", prompt: PromptConfig
) -> dict[str, list[int] | None]:
    """Token ids of an example's prompt and responses.

    Prompt and response are tokenized separately, as in sampling. A response that ended by itself gets the end-of-turn
    token. A response that was cut gets none: the model must not learn to end there.
    """

    def response(text: str | None, finish_reason: str | None) -> list[int] | None:
        if text is None:
            return None
        return tokenize(tokenizer, text) + (end_of_turn(tokenizer) if finish_reason == "stop" else [])

    return {
        "prompt": tokenize(tokenizer, render_prompt(tokenizer, row["question"], prompt)),
        "chosen": response(row["chosen"], row["chosen_finish_reason"]),
        "rejected": response(row["rejected"], row["rejected_finish_reason"]),
        "mismatched": response(row.get("mismatched"), row.get("mismatched_finish_reason")),
    }


def steps(rows: Iterable[Row], examples_per_step: int) -> Iterator[list[Row]]:
    """The global optimizer steps of a stream of TOKENIZED rows. The last step of an epoch may be smaller."""
    step: list[Row] = []
    for row in rows:
        if step and (len(step) == examples_per_step or row["epoch"] != step[0]["epoch"]):
            yield step
            step = []
        step.append(row)
    if step:
        yield step


def micro_batches(step: Sequence[Row], rank: int, world_size: int, size: int) -> list[list[Row]]:
    """The micro-batches of one worker. Every worker gets the same number, which a sharded engine needs; some are empty.

    Examples are dealt to the workers in order of length, so that each worker has about as many tokens and each
    micro-batch has rows of about the same length.
    """
    by_length = sorted(step, key=lambda row: len(row["prompt"]) + len(row["chosen"]), reverse=True)
    own = by_length[rank::world_size]
    num_batches = math.ceil(math.ceil(len(step) / world_size) / size)
    return [own[i * size : (i + 1) * size] for i in range(num_batches)]
