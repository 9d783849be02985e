"""Examples -> rows in the shapes that trainers read, and what LlamaFactory's dataset_info.json says of them.

    messages            messages: [user, assistant]; as text: text
    prompt-completion   prompt, completion
    preference          prompt, chosen, rejected
    unpaired            prompt, completion, label: true of a chosen response, false of a rejected one

Each but `text` and `label` is a list of {role, content}, or as text a string. A row of the last comes twice: once for
the chosen response and once for the rejected one, if there is one.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from east_ray.config import InputError, PromptConfig
from east_ray.questions.prompts import messages, text_prompt


class Shape(StrEnum):
    """What a row is."""

    MESSAGES = "messages"
    PROMPT_COMPLETION = "prompt-completion"
    PREFERENCE = "preference"
    UNPAIRED = "unpaired"


_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
#: What each row says of its example, beside the shape's own columns.
_ABOUT = [
    ("question_id", pa.string()),
    ("weight", pa.float64()),
    ("entropy", pa.float64()),
    ("pass_rate", pa.float64()),
]
#: The columns of each shape that hold conversations or text.
_SPOKEN = {
    Shape.MESSAGES: ("messages",),
    Shape.PROMPT_COMPLETION: ("prompt", "completion"),
    Shape.PREFERENCE: ("prompt", "chosen", "rejected"),
    Shape.UNPAIRED: ("prompt", "completion"),
}


@dataclass(frozen=True)
class Form:
    """A shape, how its prompts are put, and whether as text instead of as messages.

    `bare`: only the shape's own columns, for services that refuse others.
    """

    shape: Shape
    prompt: PromptConfig
    as_text: bool = False
    bare: bool = False

    @property
    def has_system_column(self) -> bool:
        """Whether the system message is a column: a prompt of text has no place for it."""
        return self.as_text and bool(self.prompt.system) and not self.bare

    @property
    def responses(self) -> tuple[str, ...]:
        """Which responses of an example it has."""
        return ("chosen", "rejected") if self.shape in (Shape.PREFERENCE, Shape.UNPAIRED) else ("chosen",)

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """The columns of a row. Raises InputError for `template_variables` that no column can hold."""
        if self.as_text and self.shape is Shape.MESSAGES:
            fields = [("text", pa.string())]
        else:
            fields = [(name, pa.string() if self.as_text else _MESSAGES) for name in _SPOKEN[self.shape]]
        if self.shape is Shape.UNPAIRED:
            fields.append(("label", pa.bool_()))
        if self.bare:
            return pa.schema(fields)
        if self.has_system_column:
            fields.append(("system", pa.string()))
        if self.prompt.template_variables and not self.as_text:  # TRL renders the template with these
            fields.append(("chat_template_kwargs", _type_of(self.prompt.template_variables)))
        ends = ["finish_reason"]
        if self.shape is Shape.PREFERENCE:
            ends = ["chosen_finish_reason", "rejected_finish_reason"]
        return pa.schema([*fields, *_ABOUT, *((name, pa.string()) for name in ends)])

    def rows(self, example: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The rows of an example with one chosen response (`training.dataset.trained_responses`); of `schema`."""
        names = self.schema.names
        for row in self._rows(example):
            yield {name: row[name] for name in names}

    def _rows(self, example: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        asked = self._asked(example["question"])
        row = {name: example[name] for name, _ in _ABOUT} | {
            "prompt": asked,
            "system": self.prompt.system,
            "chat_template_kwargs": self.prompt.template_variables,
        }
        chosen, rejected = self._said(example["chosen"]), self._said(example["rejected"])
        ends = {name: example[f"{name}_finish_reason"] for name in ("chosen", "rejected")}
        if self.shape is Shape.PREFERENCE:
            yield (
                row | {"chosen": chosen, "rejected": rejected} | {f"{name}_finish_reason": ends[name] for name in ends}
            )
            return
        whole = {"text" if self.as_text else "messages": asked + chosen}
        yield row | whole | {"completion": chosen, "label": True, "finish_reason": ends["chosen"]}
        if self.shape is Shape.UNPAIRED and example["rejected"] is not None:
            yield row | {"completion": rejected, "label": False, "finish_reason": ends["rejected"]}

    def _asked(self, question: str) -> Any:
        if self.as_text:
            return text_prompt(question, self.prompt)
        return messages(question, self.prompt.model_copy(update={"style": "chat"}))

    def _said(self, response: str | None) -> Any:
        return response if self.as_text else [{"role": "assistant", "content": response}]

    def llamafactory_entry(self, file_name: str) -> dict[str, Any] | None:
        """The file's entry in LlamaFactory's dataset_info.json; None for a form that it cannot read.

        Source: data/README.md of hiyouga/LLaMA-Factory. It reads conversations in one column alone, and responses to
        choose between as objects, where TRL and OpenRLHF have lists; so it gets all shapes but messages as text.
        """
        if not self.as_text:
            if self.shape is not Shape.MESSAGES:
                return None
            roles = {f"{role}_tag": role for role in ("user", "assistant", "system")}
            tags = {"role_tag": "role", "content_tag": "content", **roles}
            return {
                "file_name": file_name,
                "formatting": "sharegpt",
                "columns": {"messages": "messages"},
                "tags": tags,
            }
        of_shape = {
            Shape.MESSAGES: {"prompt": "text"},  # its stage `pt`
            Shape.PROMPT_COMPLETION: {"prompt": "prompt", "response": "completion"},
            Shape.PREFERENCE: {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
            Shape.UNPAIRED: {"prompt": "prompt", "response": "completion", "kto_tag": "label"},
        }
        columns = of_shape[self.shape] | ({"system": "system"} if self.has_system_column else {})
        ranking = {"ranking": True} if self.shape is Shape.PREFERENCE else {}
        return {"file_name": file_name, "formatting": "alpaca", **ranking, "columns": columns}


def _type_of(template_variables: Mapping[str, Any]) -> pa.DataType:
    """The type of a column of these. Raises InputError if neither JSON nor Arrow can hold them."""
    try:
        json.dumps(template_variables)
        return pa.scalar(template_variables).type
    except (TypeError, OverflowError, pa.ArrowException) as error:
        needs = "expected text, numbers, true, false, and lists and mappings of these, each list of one kind"
        raise InputError(f"prompt.template_variables: no column can hold them ({error}); {needs}") from error


#: Up to here every whole number is a double.
MAX_DRAWN = 2**53


def drawn(weights: npt.ArrayLike, num_drawn: int, seed: int) -> npt.NDArray[np.int64]:
    """How often each example is drawn if this many are, in proportion to the weights: systematic resampling.

    Each count differs from its expectation, num_drawn * weight / sum of the weights, by less than one. One random
    number shifts `num_drawn` marks at equal distances along the examples, each of which is as long as its weight.
    Source: Kitagawa, "Monte Carlo filter and smoother" (1996), appendix. The weights are finite and at least 0, and one
    of them is larger; `num_drawn` is at most MAX_DRAWN.

    >>> drawn([1.0, 0.0, 2.5], 7, seed=0)
    array([2, 0, 5])
    """
    ends = np.cumsum(np.asarray(weights, np.float64))
    # How many marks are before the end of each example; all are before the last, whatever is rounded.
    before = np.ceil(ends / ends[-1] * num_drawn - np.random.default_rng(seed).random())
    before = np.where(ends == ends[-1], num_drawn, before.clip(0, num_drawn)).astype(np.int64)
    return np.diff(before, prepend=0)
