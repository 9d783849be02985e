"""The first rows of a file of responses -> the settings of `samples`, by the names that tools give their columns.

No tool's shape is read by code of its own: a column is taken for what its name says if its values are of the kind that
is needed, and the shape of a row (a list of responses, or one response) follows from the values.

>>> found = recognised([{"problem": "1 + 1?", "expected_answer": 2, "generation": "\\\\boxed{2}"}])
>>> found.tool, found.settings["response_column"], found.missing
("NeMo-Skills' generations", 'generation', {})
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from east_ray.config import InputError
from east_ray.reading.columns import (
    Kind,
    are_flags,
    best,
    fields_of,
    first_common,
    flat,
    has_user,
    held,
    holds_conversation,
    is_count,
    is_parallel,
    is_prompt,
    is_reference,
    is_response,
    is_responses,
    numbered,
)
from east_ray.reading.fields import (
    printed_length,
    prompt_text,
    response_text,
)

Row = Mapping[str, Any]

#: Names of columns, in groups; of a group the least nested column is taken, and of these the first name.
_QUESTION = (
    "question problem instruction query prompt question_text problem_text problem_statement input messages "
    "conversations conversation",
)
_REFERENCE = (
    "reference_answer expected_answer ground_truth gold_answer golden_answer correct_answer true_answer final_answer "
    "ref_answer ref_ans gt_answer canonical_answer answer_key gold_standard gold gt gts reference target "
    "answer expected label",
    "solution reference_solution gold_solution worked_solution gt_cot rationale",
)
_RESPONSES = (
    "responses generations completions outputs choices samples resps model_outputs candidates rollouts predictions "
    "generated_texts generated_solutions solutions generation completion output response resp code text model_output "
    "model_response model_answer generated_solution generated_text predicted_text prediction",
)
_CONVERSATION = ("conversations conversation messages",)
_TEXT = ("text content generated_text response output completion generation answer",)
_FINISH_REASON = ("finish_reason finish_reason.type finish_reasons stop_reason stop_reasons finished_reason",)
_NUM_TOKENS = ("num_tokens num_generated_tokens completion_tokens generated_token_count num_output_tokens",)
_NAME = ("custom_id question_id id uuid idx index doc_id problem_id prompt_id example_id unique_id",)
#: What is the same in the rows of a question that lm-evaluation-harness writes for each of its filters.
_ASKED = ("doc", "doc_id", "question", "target")
#: The settings whose columns hold what is told apart in a row.
_IN_ROWS = ("question_column", "reference_answer_column", "responses_column", "response_column")

#: What leaves which columns, the most telling first. Only for the message: the settings come from the names above.
TOOLS: dict[str, tuple[str, ...]] = {
    "the samples of another run of east-ray": ("question_id", "question", "reference_answer", "responses"),
    "lm-evaluation-harness' logged samples": ("doc", "resps", "target"),
    "Inspect's log": ("input", "target", "output.choices"),
    "batch output of an OpenAI server": ("custom_id", "response.body.choices"),
    "verl's generations": ("prompt", "reward_model.ground_truth", "responses"),
    "verl's rollouts": ("input", "output", "gts"),
    "Evalchemy's examples": ("problem", "expected_answer", "model_outputs"),
    "NeMo-Skills' generations": ("problem", "expected_answer", "generation"),
    "OpenMathInstruct-2": ("problem", "expected_answer", "generated_solution"),
    "Qwen2.5-Math's evaluation": ("question", "gt", "code"),
    "Open R1's generations": ("problem", "solution", "generations"),
    "OpenThoughts": ("problem", "solution", "conversations"),
    "DeepMath": ("question", "final_answer", "r1_solution_1"),
    "MetaMathQA": ("query", "response", "original_question"),
    "distilabel's generations": ("instruction", "generation", "distilabel_metadata"),
    "vLLM's request outputs": ("prompt", "outputs"),
    "TRL's logged completions": ("prompt", "completion", "advantage"),
}


@dataclass(frozen=True)
class Taken:
    """What is taken for what: of a `what` (the question), the setting, the name it gets, and a text in the rows."""

    what: str
    setting: str
    name: Any
    example: Any


@dataclass(frozen=True)
class Recognised:
    """What the first rows of a file say about it."""

    tool: str | None
    """Whose shape the rows have; None: no tool's that is known here."""
    settings: dict[str, Any]
    """Of the section `samples`, but the path; without those that are missing."""
    taken: list[Taken]
    missing: dict[str, str]
    """Setting -> what it should name, which no column seems to be."""
    columns: list[str]
    """Names that a setting could have: the columns and what is nested in them."""


def recognised(rows: Sequence[Row], given: Mapping[str, Any] = MappingProxyType({})) -> Recognised:
    """What the rows seem to be. `given` are settings of `samples` that the user has named, which nothing overrides.

    Raises InputError if the responses are in a form that no setting reads.
    """
    search = _Search(rows, given)
    if "questions" in given:
        search.take("id_column", "the question's name in the file of questions", _NAME, is_reference)
        search.check_questions()
    else:
        search.take_question()
    search.take_responses()
    search.take_elsewhere()
    search.take_rules()
    return search.result()


def recognised_question(rows: Sequence[Row], given: Mapping[str, Any] = MappingProxyType({})) -> Recognised:
    """The same of rows without responses, of which only the question and the reference answer are looked for."""
    search = _Search(rows, given)
    search.take_question()
    return search.result()


def with_responses(rows: Sequence[Row], name: str) -> dict[str, str]:
    """The setting for responses that the user names: `response_column` if they are one in each row."""
    values = fields_of(rows).get(name, [])
    is_list = sum(map(is_responses, values)) >= sum(map(is_response, values))
    return {"responses_column" if is_list else "response_column": name}


def rows_inside(rows: Sequence[Row]) -> tuple[str, int] | None:
    """The name of a list of objects in a row that is a document, and how many there are: they may be the rows."""
    lists = [(name, value) for name, values in fields_of(rows).items() for value in values if isinstance(value, list)]
    lengths = [(name, len(value)) for name, value in lists if value and all(isinstance(one, Mapping) for one in value)]
    return max(lengths, key=lambda one: one[1], default=None)


class _Search:
    """Takes one column after the other for something; what is taken for one thing is not taken for another."""

    def __init__(self, rows: Sequence[Row], given: Mapping[str, Any]) -> None:
        self.given, self.rows, self.fields = given, rows, fields_of(rows)
        self.settings: dict[str, Any] = dict(given)
        self.taken: list[Taken] = []
        self.missing: dict[str, str] = {}

    def take(self, setting: str, what: str, names: Sequence[str], fits: Kind) -> None:
        """The column for a setting: the one given, else the first by name whose values are mostly such as fit."""
        if setting in self.given:
            return
        flags = [name for name, values in self.fields.items() if are_flags(name, values)]
        if (name := best(self.fields, names, fits, [*self._used(), *flags])) is not None:
            self._note(setting, what, name, filter(fits, self.fields[name]))
        elif (name := best(self.fields, names, lambda value: True, self._used())) is not None:
            holds = "only 0 and 1" if name in flags else held(self.fields[name])
            self.missing[setting] = f"{what} ({name} holds {holds})"
        else:
            self.missing[setting] = what

    def take_question(self) -> None:
        """The question and its reference answer."""
        self.take("question_column", "the question", _QUESTION, is_prompt)
        self.take("reference_answer_column", "the reference answer", _REFERENCE, is_reference)

    def take_responses(self) -> None:
        """The responses: a list in each row, or one in each row, or several columns that are numbered."""
        if "responses_column" in self.given:
            self._take_inside(self.given["responses_column"])
        elif "response_column" in self.given:
            self._take_beside(self.fields)
        else:
            self._take_commonest()

    def _take_commonest(self) -> None:
        """A list of responses before one response, and that before numbered columns: the first that many rows have."""
        several = best(self.fields, _RESPONSES, is_responses, self._used())
        one, columns = self._one_response(), numbered(self.fields)
        kinds = ((several, is_responses), (one, is_response), (columns and columns[0], is_response))
        counts = [(name, sum(map(fits, self.fields[name]))) for name, fits in kinds if name]
        name = first_common(counts)
        if name is None:
            self._check_not_printed()
            self.take("responses_column", "the list of responses", _RESPONSES, is_responses)
        elif name == several:
            first = next(flat(value)[0] for value in self.fields[name] if is_responses(value))
            self._note("responses_column", "the list of responses", name, [first])
            self._take_inside(name)
        elif name == one:
            self._note("response_column", "a response", name, filter(is_response, self.fields[name]))
            self._take_beside(self.fields)
        else:
            self._note("responses_column", "the list of responses", columns, self.fields[name])

    def _check_not_printed(self) -> None:
        """Raises InputError if the responses are lists that Python has printed, which no setting reads."""
        if name := best(self.fields, _RESPONSES, lambda value: printed_length(value) > 0, self._used()):
            raise InputError(f"{name}: found a list as Python prints it; write it as JSON")

    def _one_response(self) -> str | None:
        """A column of one response in each row. One with a user's turn in it has to be named as a conversation."""
        said = best(self.fields, _RESPONSES, lambda value: is_response(value) and not has_user(value), self._used())
        return said or best(self.fields, _CONVERSATION, is_response, self._used())

    def _take_inside(self, name: Any) -> None:
        """What is inside a list of responses that are objects, or in another list beside it."""
        lists = [flat(value) for value in self.fields.get(str(name), []) if is_responses(value)]
        objects = [one for value in lists for one in value if isinstance(one, Mapping)]
        if not objects:
            lengths = {len(value) for value in lists}
            reasons = best(self.fields, _FINISH_REASON, lambda value: is_parallel(value, lengths))
            if reasons is not None and "finish_reasons_column" not in self.given:
                self._note("finish_reasons_column", "their finish reasons", reasons, self.fields[reasons])
            return
        inside = fields_of(objects)
        if "text_field" not in self.given and not all(map(is_response, objects)):
            if (text := best(inside, _TEXT, is_response, share=0.0)) is not None:
                self._note("text_field", "the text of a response", text, filter(is_response, inside[text]))
            else:
                self.missing["text_field"] = f"the text in a response ({', '.join(inside)} is there)"
        self._take_beside(inside)

    def _take_beside(self, fields: Mapping[str, list[Any]]) -> None:
        """What stands beside the text of a response."""
        for setting, what, names, fits in (
            ("finish_reason_field", "its finish reason", _FINISH_REASON, lambda value: isinstance(value, str)),
            ("num_tokens_field", "its number of tokens", _NUM_TOKENS, is_count),
        ):
            if setting not in self.given and (name := best(fields, names, fits)) is not None:
                self._note(setting, what, name, fields[name])

    def take_elsewhere(self) -> None:
        """Rows with a name and neither question nor reference, as of a batch: these are in another file."""
        if {"question_column", "reference_answer_column"} <= self.missing.keys() and "custom_id" in self.fields:
            for setting in ("question_column", "reference_answer_column"):
                del self.missing[setting]
            self.missing["questions.path"] = "the file of the questions and reference answers, which are not here"

    def check_questions(self) -> None:
        """The file of questions has to say which of its columns has their names; a format of one's own may do so."""
        there = self.given["questions"]
        if isinstance(there, Mapping) and "id_column" not in there and ":" not in str(there.get("format", "")):
            self.missing["questions.id_column"] = "the column of the file of questions that has their names"

    def take_rules(self) -> None:
        """Rows that hold a question more than once: one filter of lm-evaluation-harness, or some responses of each."""
        if "filter" in self.fields and "resps" in self.fields and "where" not in self.given:
            self._take_filter()
        elif "responses_column" in self.settings and not self.given.keys() & {"group_by", "where"}:
            self._take_group()
        if {"question_id", "question", "responses"} <= self.fields.keys() and "id_column" not in self.given:
            self._note("id_column", "the question's name", "question_id", self.fields["question_id"])

    def _take_filter(self) -> None:
        """The filter that each question has a row of or, as tasks have filters of their own, one of each question."""
        filters: dict[str, dict[str, None]] = {}
        for row in self.rows:
            if isinstance(row.get("filter"), str):
                asked = repr([row.get(name) for name in _ASKED])
                filters.setdefault(asked, {})[row["filter"]] = None
        if not filters:
            return
        every = list(filters.values())
        common = [one for one in every[0] if all(one in others for others in every)][:1]
        chosen = common or list(dict.fromkeys(next(iter(one)) for one in every))
        if any(len(one.keys() & {*chosen}) > 1 for one in every):
            counts = Counter(map(str, self.fields["filter"]))
            found = ", ".join(f"{name} in {number} rows" for name, number in counts.items())
            self.missing["where.filter"] = f"the filter whose rows are read, because no question may have two: {found}"
            return
        said = "what rows must have" + "; others repeat them" * (len(chosen) < len({*self.fields["filter"]}))
        self._note("where", said, {"filter": chosen[0] if len(chosen) == 1 else chosen}, [])

    def _take_group(self) -> None:
        """If a question is in several rows: its text and reference tell which rows are of it, or a column of names."""
        named = [self.settings.get(name) for name in ("question_column", "reference_answer_column")]
        pair = [str(name) for name in named if name is not None]
        values = self.fields.get(str(named[0]), [])
        if not any(times > 1 for times in Counter(map(str, values)).values()):
            return
        if not all(isinstance(value, str) for value in values):  # messages name nothing
            name = best(self.fields, _NAME, is_reference, self._used())
            pair = [] if name is None else [name]
        if pair:
            self._note("group_by", "the same in all rows of a question", pair, [])

    def _used(self) -> list[str]:
        """Columns that are taken or given for what is in a row of a question.

        A conversation may be both: its user's turn asks and its assistant's answers.
        """
        given = [self.given[setting] for setting in _IN_ROWS if setting in self.given]
        names = [one.name for one in self.taken] + given
        used = [str(one) for name in names for one in (name if isinstance(name, list) else [name])]
        return [name for name in used if not holds_conversation(next(iter(self.fields.get(name, [])), None))]

    def _note(self, setting: str, what: str, name: Any, values: Iterable[Any]) -> None:
        self.settings[setting] = name
        text_in = prompt_text if setting == "question_column" else response_text
        self.taken.append(Taken(what, setting, name, _shown(next(iter(values), None), text_in)))

    def result(self) -> Recognised:
        """What was found."""
        tool = next((tool for tool, names in TOOLS.items() if self.fields.keys() >= set(names)), None)
        return Recognised(tool, self.settings, self.taken, self.missing, list(self.fields))


def _shown(value: Any, text_in: Callable[[Any], str | None]) -> Any:
    """A value as an example: the text in it, if there is one."""
    with suppress(InputError):
        return text_in(value)
    return None if isinstance(value, Mapping) else value
