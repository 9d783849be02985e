"""The section `prompt`, and which arguments of vLLM's SamplingParams a run may pass on."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from east_ray.config.base import Section


class WorkedQuestion(Section):
    """A question with its solution, as both stand in the prompt."""

    question: Annotated[str, Field(pattern=r"\S")]
    """The question's text, which `prompt.template` gets."""
    solution: Annotated[str, Field(pattern=r"\S")]
    """What follows the question: the response that the model is to imitate."""


class ExamplesConfig(Section):
    """Worked questions that stand before the question (few-shot). A path alone is short for {path: PATH}."""

    path: str | None = None
    """A JSONL file (local, s3:// or gs://) with the columns `question` and `solution`. It is read once; config.yaml of
    the run holds `questions` in place of the path."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Take the first so many of the file; by default all."""
    questions: list[WorkedQuestion] = []
    """In place of a path: the worked questions themselves, e.g. [{question: "1 + 1?", solution: " 2"}]."""

    def _problems(self) -> Iterator[str]:
        if (self.path is None) == (not self.questions):
            yield "give exactly one of path and questions"
        elif self.count is not None and self.path is None:
            yield "count belongs to path; leave out some of questions instead"


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class PromptConfig(Section):
    """How a question is put to the model."""

    style: Literal["auto", "chat", "text"] = "auto"
    """chat: as messages, which the model's chat template renders. text: `template` as it stands, for base models. auto:
    text where the tokenizer has no chat template; the record of the stage questions says which it was."""
    system: str | None = None
    """System message. The paper's: "Please reason step by step, and put your final answer within \\boxed{}.". With text
    there is none: such words belong into `template`."""
    template: str = "{question}"
    """The user's message, or with text the prompt itself; {question} stands for the question's text. The model's own
    chat template does the rest; with text, the tokenizer's beginning-of-sequence token comes first, and only once."""
    template_variables: dict[str, Any] = {}
    """Variables of the model's chat template, e.g. {enable_thinking: false}. Llama 3's template writes today's date
    unless {date_string: ...} fixes it, and sampling and training may happen on different days."""
    examples: Annotated[ExamplesConfig | None, BeforeValidator(_path_alone)] = None
    """Worked questions before the question. chat: earlier turns. text: of each `template` with its question, directly
    after it its solution as it stands, and an empty line; `training.prompt` says whether training sees them."""

    def _problems(self) -> Iterator[str]:
        if "{question}" not in self.template:
            yield "template must contain {question}"
        if self.style == "text" and (said := self.problem_of_text()):
            yield said

    def problem_of_text(self) -> str | None:
        """What of these settings has no meaning in a prompt of text; None if all has."""
        if self.system:
            return "system: a prompt of text has no system message; write these words into template"
        if self.template_variables:
            return "template_variables: a prompt of text is rendered by no chat template"
        return None

    @property
    def worked_questions(self) -> list[WorkedQuestion]:
        """The worked questions before the question; none by default."""
        assert self.examples is None or self.examples.questions, "storage.few_shot has not read the file yet"
        return self.examples.questions if self.examples else []

    def plain(self) -> "PromptConfig":
        """The same without worked questions."""
        return self.model_copy(update={"examples": None})


#: A string that ends a response.
StopString = Annotated[str, Field(min_length=1, max_length=200)]

#: Arguments of vLLM's SamplingParams that a setting of ours decides.
_OWN = {
    "n": "responses_per_question",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "seed": "seed, with sampling.seeded",
    "stop": "stop",
    "logprobs": "sampling.logprobs",
}
#: Those that would change what an engine returns: a sample is a whole text with the tokens that it was drawn in.
_OUTPUTS = frozenset(
    {"prompt_logprobs", "logprob_token_ids", "flat_logprobs", "detokenize", "skip_special_tokens", "output_kind"}
    | {"spaces_between_special_tokens", "include_stop_str_in_output", "stream_interval", "skip_clone"}
    | {"output_text_buffer_length", "routed_experts_prompt_start", "trace_decode_token_ids"}
    | {"skip_reading_prefix_cache", "truncate_prompt_tokens"}
)


def _check_params(params: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in params:
        if name in _OWN:
            raise ValueError(f"{name} has a setting of its own: {_OWN[name]}")
        if name in _OUTPUTS or name.startswith("_"):
            raise ValueError(f"{name} would change what the engine returns, which the run relies on; leave it out")
    return params


#: Further arguments of vLLM's SamplingParams; the backend checks their names.
SamplingParams = Annotated[dict[str, Any], AfterValidator(_check_params)]
