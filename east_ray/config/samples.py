"""The section `samples`: responses that another sampler made, and where the parts of a row are found."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from east_ray.config.base import Column, Encoding, Section
from east_ray.config.sections import QuestionsConfig

Names = Annotated[list[Column], Field(min_length=1)]


class SamplesConfig(Section):
    """Responses from another sampler, which are clustered, weighted and trained on; nothing is sampled.

    Names of columns and fields may have dots and indices: doc.question, choices.0. A column whose own name has the dots
    comes first.
    """

    path: str
    """A file, a folder with its subfolders, or a pattern such as out/*.jsonl (local, s3:// or gs://). Read are .jsonl,
    .ndjson, .json, .csv, .tsv, .parquet and .arrow, also with .gz or .zst; another run's samples/ can be given too."""
    encoding: Encoding = "utf-8"
    """Encoding of text files, e.g. cp1252. A file in another one is refused."""
    question_column: Column = "question"
    """The question: a text, or messages, of which the user's last is the question, also where a chat template has
    rendered them."""
    reference_answer_column: Column | None = "reference_answer"
    """The final answer, e.g. 72, or a worked solution that marks it: #### 72, \\boxed{72}, the answer is 72. null:
    there is none; see `labels.source`."""
    responses_column: Column | Names = "responses"
    """The list of responses of a row that is a question: texts, messages, or objects that contain a text. A list of
    columns is one response a column, e.g. [solution_1, solution_2]."""
    response_column: Column | None = None
    """In place of `responses_column`, where a row is one response. Rows of the same question are put together, over
    all files, in the order of files and rows."""
    group_by: Column | Names | None = None
    """The columns that tell which rows are of the same question. By default, with `response_column`, `id_column`, else
    question and reference answer. With `responses_column`: put rows of a question together, e.g. of a file per seed."""
    text_field: Column = "text"
    """If responses are objects: the field of the text, e.g. message.content."""
    finish_reason_field: Column = "finish_reason"
    """If responses are objects: the field that says stop or length, e.g. meta_info.finish_reason.type; with
    `response_column` also a column. By default also stop_reason. A name of your own must be in some row; a response
    without one is taken to have stopped by itself."""
    finish_reasons_column: Column | Names | None = None
    """A column with the list of finish reasons, one for each response."""
    num_tokens_field: Column = "num_tokens"
    """If responses are objects: the field of the number of tokens; with `response_column` also a column. It may be
    missing."""
    id_column: Column | None = None
    """A column of unique names of the questions; by default the file's name and the row's number."""
    where: dict[Column, Any] = {}
    """Read only rows whose columns have these values, or one of several, e.g. {filter: strict-match, level: [1, 2]}."""
    questions: QuestionsConfig | None = None
    """Another file that has the questions and their references, with the settings of `questions`: a row gets those
    whose id (`samples.questions.id_column`) is in its `id_column`, e.g. {path: test.jsonl, format: gsm8k,
    id_column: id}."""
    extra_columns: list[Column] = []
    """Further columns to keep, for a grader: see `questions.extra_columns`."""

    @property
    def groups(self) -> bool:
        """Whether several rows may be of one question."""
        return self.response_column is not None or self.group_by is not None

    def _problems(self) -> Iterator[str]:
        if self.response_column is not None and self.responses_column != "responses":
            yield "give one of response_column and responses_column, not both"
        if self.finish_reasons_column is not None and self.finish_reason_field != "finish_reason":
            yield "give one of finish_reasons_column and finish_reason_field, not both"
        if self.questions is not None and self.id_column is None:
            yield "questions needs id_column, the column that names a row's question there"
        # A format of a user's own may name the questions itself.
        if self.questions is not None and self.questions.id_column is None and ":" not in self.questions.format:
            yield "questions needs an id_column of its own (samples.questions.id_column), the names that rows refer to"
        for name, value in self.where.items():
            values = value if isinstance(value, list) else [value]
            if not values or any(isinstance(one, dict | list) for one in values):
                found = "an empty list" if value == [] else type(value).__name__
                yield f"where.{name}: expected a text, a number, true, false or null, or a list of these, found {found}"
