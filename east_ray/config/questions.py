"""Settings of what is asked: the sources of questions and of given responses, and the prompt."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from east_ray.config.base import Part, Section


class QuestionsConfig(Section):
    """Where questions come from."""

    path: str | None = None
    """A .jsonl, .json, .csv or .parquet file of questions (local, s3:// or gs://). Either this or `hub`."""
    hub: str | None = None
    """Name of a data set on the Hugging Face hub, e.g. openai/gsm8k."""
    hub_config: str | None = None
    """Configuration of the hub data set, e.g. main."""
    split: str = "train"
    """Split of the hub data set."""
    format: Annotated[str, Part("auto", "gsm8k", "math", "columns")] = "auto"
    """How a row is read. gsm8k: {question, answer ending in "#### 72"}; math: {problem, solution, answer}; columns: the
    columns named below; auto: one of these, by the columns of the first row; module:name: a function of your own."""
    question_column: str = "question"
    """With format columns: the column of the question's text."""
    reference_answer_column: str = "reference_answer"
    """With format columns: the column of the final answer."""
    reference_solution_column: str | None = None
    """With format columns: the column of the worked solution; `training.examples: reference_solutions` needs it."""
    id_column: str | None = None
    """With format columns: a column of unique names; by default the file's name and the row's number."""
    extra_columns: list[str] = []
    """Further columns to keep. A grader of your own finds them in `question.extra`."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Leave out this many questions from the beginning."""
    max_questions: Annotated[int, Field(ge=1)] | None = None
    """Take at most this many questions after `skip`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give exactly one of path and hub")
        return self


class SamplesConfig(Section):
    """Responses from another sampler, which are clustered, weighted and trained on; nothing is sampled."""

    path: str
    """A .jsonl or .parquet file, or a folder of them (local, s3:// or gs://); a row is a question with its responses.
    The samples/ folder of another run works too."""
    question_column: str = "question"
    """The column of the question's text."""
    reference_answer_column: str = "reference_answer"
    """The column of the final answer, e.g. 72. From a worked solution ending in #### 72 or \\boxed{72}, the answer is
    extracted."""
    responses_column: str = "responses"
    """The column of the list of responses: texts, or objects that contain a text."""
    text_field: str = "text"
    """If responses are objects: the field of the text. Dots lead into nested objects, e.g. message.content."""
    finish_reason_field: str = "finish_reason"
    """If responses are objects: the field that says stop or length. If it is missing, stop is assumed: the model ended
    the response itself."""
    num_tokens_field: str = "num_tokens"
    """If responses are objects: the field of the number of tokens; it may be missing."""
    id_column: str | None = None
    """A column of unique names of the questions; by default the file's name and the row's number."""


class PromptConfig(Section):
    """How a question is put to the model."""

    system: str | None = None
    """System message; none by default. The paper's: "Please reason step by step, and put your final answer within
    \\boxed{}."."""
    template: str = "{question}"
    """The user's message; {question} stands for the question's text. The model's own chat template does the rest."""

    template_variables: dict[str, Any] = {}
    """Variables of the model's chat template, e.g. {enable_thinking: false}. Llama 3's template writes today's date
    unless {date_string: ...} fixes it, and sampling and training may happen on different days."""

    @model_validator(mode="after")
    def _has_question(self) -> Self:
        if "{question}" not in self.template:
            raise ValueError("template must contain {question}")
        return self
