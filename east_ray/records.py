"""The rows between the stages: fields, units and Arrow schemas. Imports nothing of ours.

One row is one question with all its responses, so that clustering is row-local and nothing is ever shuffled. Each
schema is the schema of one Parquet folder in a round's directory. Columns may join; none is renamed or removed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NotRequired

import pyarrow as pa
from typing_extensions import TypedDict  # pydantic checks typing's own from Python 3.12 on only


class Reason(StrEnum):
    """Why a question that was sampled is not trained on (column ``reason`` of ``discarded/``)."""

    ALL_WRONG = "all_wrong"
    """No response is correct: there is nothing to learn from."""
    NO_BOXED_CORRECT = "no_boxed_correct"
    """Responses are correct, but none puts its answer in \\boxed{}, as the prompt asks."""
    UNPARSABLE_REFERENCE = "unparsable_reference"
    """The reference answer is no answer, so that nothing can be judged by it."""
    NO_WRONG_ANSWER = "no_wrong_answer"
    """DPO and KTO: no response has a wrong answer, so that there is nothing to reject."""
    ALL_CORRECT = "all_correct"
    """`selection.all_correct: drop`, and every response is correct."""
    CONTRADICTED_REFERENCE = "contradicted_reference"
    """`labels.policy: drop`, and the responses contradict the reference answer."""
    NO_MAJORITY = "no_majority"
    """`labels.source: majority`, and no answer is common enough to stand in for a reference."""
    NO_REFERENCE_SOLUTION = "no_reference_solution"
    """`training.examples: reference_solutions`, and the source has no worked solution for this question."""


class SetAside(StrEnum):
    """Why a row of the input has no responses and goes no further (column ``reason`` of ``set_aside/``)."""

    UNPARSABLE_REFERENCE = "unparsable_reference"
    """The reference answer is missing or no answer."""
    EMPTY_QUESTION = "empty_question"
    """The question has no text."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """The prompt leaves no room for a response in the model's context."""
    NO_RESPONSES = "no_responses"
    """Given samples: the question has no response."""
    ENGINE_REFUSED = "engine_refused"
    """The engine does not serve the request; ``detail`` says why."""
    ENGINE_DIED = "engine_died"
    """Engines have died again and again while the question was in flight, the last time with no other beside it."""
    MALFORMED_ROW = "malformed_row"
    """The row of a file cannot be read; ``detail`` says what was expected."""
    UNKNOWN_QUESTION = "unknown_question"
    """Given samples: `samples.questions` has no question with the row's id."""
    CONTRADICTING_ROWS = "contradicting_rows"
    """Given samples: rows that belong to one question have different questions or reference answers."""


class Stopped(StrEnum):
    """Why a question that was sampled got no further responses (column ``stopped_because`` of ``samples/``)."""

    ALL = "all"
    """It has the most that a question gets: `sampling.responses_per_question`, or `sampling.adaptive.budget.max`."""
    UNANIMOUS = "unanimous"
    """`sampling.adaptive.unanimous`: all its first responses have the same answer."""
    PRECISE = "precise"
    """`sampling.adaptive.precision`: the standard error of its entropy is small enough."""
    BUDGET = "budget"
    """`sampling.adaptive.budget`: more responses were worth more to other questions."""
    ENGINE_REFUSED = "engine_refused"
    """The engine did not serve a further request; the responses before it count."""
    ENGINE_DIED = "engine_died"
    """Engines have died of further requests; the responses before them count."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question as a grader sees it: a row of ``questions/``; `extra` holds `questions.extra_columns`."""

    question_id: str
    question: str
    reference_answer: str | None = None
    reference_solution: str | None = None
    level: str | None = None
    subject: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Question":
        """The question of a row of ``questions/`` or ``samples/``."""
        names = ("question_id", "question", "reference_answer", "reference_solution", "level", "subject")
        values: dict[str, Any] = {name: row.get(name) for name in names}
        return cls(**values, extra=json.loads(row.get("extra") or "{}"))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Responses to one question whose answers are equal."""

    answer: str | None
    """As the first of them writes it; None: no answer was found."""
    num_responses: int
    is_correct: bool


@dataclass(frozen=True, slots=True)
class GradedQuestion:
    """What a signal sees of a question: its clusters, largest first, and what is computed from them."""

    question_id: str
    clusters: Sequence[Cluster]
    num_responses: int
    entropy: float
    """Of the cluster shares, in nats."""
    pass_rate: float
    """Share of correct responses."""
    rejected_rate: float
    """Share of the commonest wrong answer."""
    counted: Sequence[int]
    """Sizes of the clusters that the entropy is of: all, or those with an answer (`answers.no_answer`)."""


#: ``questions/``: what is asked in this round.
QUESTIONS = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),  # unique in the round
        pa.field("question", pa.string(), nullable=False),
        pa.field("reference_answer", pa.string()),  # the final answer alone, e.g. 72 or \frac{1}{2}
        pa.field("reference_solution", pa.string()),  # worked, ending in \boxed{answer}; null if the source has none
        pa.field("level", pa.string()),  # as the source has it, e.g. "Level 5"
        pa.field("subject", pa.string()),
        pa.field("extra", pa.string()),  # JSON object of `questions.extra_columns`; null without them
    ]
)

RESPONSE = pa.struct(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int32()),  # the end-of-turn token included; null if whoever sampled did not say
        pa.field("finish_reason", pa.string(), nullable=False),  # "stop": ended by itself; "length": cut at max_tokens
        pa.field("logprob", pa.float32()),  # nats, summed over the response's tokens; null without `sampling.logprobs`
        # As sampled: with the token that ended it, or with a stop string that the text lacks; null if they are unknown.
        pa.field("token_ids", pa.list_(pa.int32())),
    ]
)

#: ``samples/``: a row per question with all its responses.
SAMPLES = pa.schema(
    [
        *QUESTIONS,
        pa.field("model", pa.string(), nullable=False),  # the name of the model that was asked; "given": unknown
        pa.field("prompt", pa.string()),  # as rendered; null in given samples, as the next
        pa.field("num_prompt_tokens", pa.int32()),
        pa.field("responses", pa.list_(RESPONSE), nullable=False),  # responses_per_question, or fewer if it is adaptive
        pa.field("num_responses", pa.int32()),  # the length of `responses`; null in samples of older runs
        # Why it has no more, see Stopped; null in given samples, those of older runs, and while it is asked for more.
        pa.field("stopped_because", pa.string()),
        pa.field("key", pa.string()),  # all that the responses depend on, see journal.sample_key; null in given samples
    ]
)

CLUSTER = pa.struct(
    [
        pa.field("answer", pa.string()),  # as the first response of the cluster writes it; null: no answer was found
        pa.field("num_responses", pa.int32(), nullable=False),
        pa.field("is_correct", pa.bool_(), nullable=False),
    ]
)

#: ``answers/``: a row per question, in parts of the same names and the same rows as ``samples/``.
ANSWERS = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("reference_answer", pa.string()),
        pa.field("can_use_reference", pa.bool_(), nullable=False),  # false: no response can be compared with it
        pa.field("clusters", pa.list_(CLUSTER), nullable=False),  # largest first; of all responses
        # Of each response, in the order of ``samples/``:
        pa.field(
            "responses",
            pa.list_(
                pa.struct(
                    [
                        pa.field("answer", pa.string()),  # as the response writes it; null: none was found
                        pa.field("is_boxed", pa.bool_(), nullable=False),  # the answer stood in \boxed{}
                        pa.field("cluster", pa.int32(), nullable=False),  # its place in `clusters`
                        pa.field("is_correct", pa.bool_(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)

CHOSEN = pa.struct(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("token_ids", pa.list_(pa.int32())),  # as in samples/
    ]
)

#: What the section `labels` decided about a question.
LABEL = pa.struct(
    [
        pa.field("action", pa.string(), nullable=False),  # relabel, drop, downweight, majority or trusted
        pa.field("answer", pa.string(), nullable=False),  # the majority's answer; of trusted, the one that was checked
        pa.field("original_reference", pa.string()),  # the given reference answer; null if there is none
        # Whether `answer` equals it; null if the responses cannot be compared with it.
        pa.field("agrees", pa.bool_()),
        pa.field("reference_cluster", pa.int32()),  # the place of its cluster in `clusters`; null if no response has it
        pa.field("share", pa.float64()),  # of the responses, which have the majority's answer; null without a majority
        pa.field("margin", pa.float64()),  # this share minus that of the next commonest outcome
        pa.field("slope", pa.float64()),  # of the pass rate, a round; null if `labels.max_slope` does not ask
        pa.field("factor", pa.float64(), nullable=False),  # the weight is multiplied by it before normalizing
    ]
)

_JUDGED = [
    pa.field("question_id", pa.string(), nullable=False),
    pa.field("question", pa.string(), nullable=False),
    pa.field("reference_answer", pa.string()),  # what counts as right: the given one, or what `label` put in its place
    pa.field("label", LABEL),  # null where nothing was decided
    # The next six are null where nothing was sampled (training.examples: reference_solutions).
    pa.field("num_responses", pa.int32()),
    pa.field("num_truncated", pa.int32()),  # responses with finish_reason "length"
    pa.field("entropy", pa.float64()),  # nats, of the shares of the clusters
    pa.field("pass_rate", pa.float64()),  # share of correct responses
    pa.field("rejected_rate", pa.float64()),  # share of the commonest wrong answer
    pa.field("clusters", pa.list_(CLUSTER)),  # largest first
]

#: ``examples/``: what is trained on.
EXAMPLES = pa.schema(
    [
        *_JUDGED,
        pa.field("signal", pa.float64(), nullable=False),  # entropy (nats), a rate, or 1; see weighting.py
        pa.field("weight", pa.float64(), nullable=False),  # the loss multiplier; its mean over the examples is 1
        pa.field("chosen", pa.string(), nullable=False),  # a correct response
        pa.field("chosen_finish_reason", pa.string(), nullable=False),
        pa.field("chosen_token_ids", pa.list_(pa.int32())),  # as in samples/
        # Further correct responses that share the weight; null with selection.responses_per_question_trained: 1.
        pa.field("more_chosen", pa.list_(CHOSEN)),
        pa.field("rejected", pa.string()),  # a response of the commonest wrong answer; null if none is wrong
        pa.field("rejected_finish_reason", pa.string()),
        pa.field("rejected_token_ids", pa.list_(pa.int32())),  # as in samples/
    ]
)

#: ``discarded/``: questions that were sampled and are not trained on, with the reason.
DISCARDED = pa.schema([*_JUDGED, pa.field("reason", pa.string(), nullable=False)])

#: What judging a question gives: an example that lacks its weight if ``reason`` is null, else a discarded question.
JUDGED = pa.schema(
    [field.with_nullable(True) for field in EXAMPLES if field.name != "weight"] + [pa.field("reason", pa.string())]
)

#: ``set_aside/``: rows of the input that have no responses and go no further, with the reason.
SET_ASIDE = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("question", pa.string()),
        pa.field("reference_answer", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),  # e.g. "1530 prompt tokens, room for 1023", or what is wrong with the row
        pa.field("key", pa.string()),  # as in samples/, where the engine is the reason; else null
    ]
)

#: ``evaluation/answers/``: a row per model and held-out question, answered at temperature 0.
GREEDY_ANSWERS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),  # "base" or the name of a variant
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("level", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("reference_answer", pa.string()),
        pa.field("response", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("is_correct", pa.bool_(), nullable=False),  # by the run's answers.equivalence
        pa.field("is_correct_by_string", pa.bool_(), nullable=False),  # by answers.equivalence: string
    ]
)

#: ``evaluation/sampled_answers/``: a row per model and held-out question with several sampled responses.
SAMPLED_ANSWERS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("level", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("num_responses", pa.int32(), nullable=False),
        pa.field("num_correct", pa.int32(), nullable=False),
        pa.field("num_answerless", pa.int32(), nullable=False),  # responses in which no answer was found
        pa.field("num_truncated", pa.int32(), nullable=False),  # responses with finish_reason "length"
        pa.field("clusters", pa.list_(CLUSTER), nullable=False),  # largest first
    ]
)


# -------------------------------------------------------------------------------------------------------- JSON records
# Shares and accuracies lie in [0, 1]; `low` and `high` bound 95 % intervals. NotRequired: older runs may lack it.


class Interval(TypedDict):
    """The bounds of a 95 % interval."""

    low: float
    high: float


class Accuracy(Interval):
    """Share of questions answered correctly at temperature 0; the interval is Wilson's."""

    accuracy: float
    num_questions: int
    num_unanswered: int
    """Responses in which no answer was found."""
    num_truncated: int
    accuracy_by_string: NotRequired[float]
    """By answers.equivalence: string."""


class Difference(Interval):
    """A quantity of one model minus that of another, on the same questions."""

    difference: float


class PairedDifference(Difference):
    """Accuracy of one model minus that of another.

    The interval is of the paired bootstrap. It and `p_value` speak of the questions drawn, not of a training's seed.
    """

    p_value: float
    """McNemar's exact test, two-sided."""
    num_only_first: int
    """Questions that the first model alone answers correctly."""
    num_only_second: int


class ModelDifference(PairedDifference):
    """The paired difference of two models by name."""

    first: str
    second: str


class GroupAccuracy(Interval):
    """Accuracy of a model on the questions of a level or subject; the interval is Wilson's."""

    model: str
    column: str
    """level or subject."""
    group: str
    """The value of that column."""
    num_questions: int
    accuracy: float


class ValueAtK(Interval):
    """pass@k or maj@k, a mean over the questions."""

    k: int
    value: float


class SampledMetrics(TypedDict):
    """What a model's sampled responses come to."""

    num_responses: int
    """The least number of responses to a question."""
    truncated_share: float
    answerless_share: float
    """Share of the responses in which no answer was found."""
    pass_at: list[ValueAtK]
    maj_at: list[ValueAtK]


class SampledDifference(Difference):
    """pass@k or maj@k of one model minus that of another."""

    first: str
    second: str
    metric: str
    """e.g. pass@8."""


class WeightSpread(TypedDict):
    """How a training's weights spread over its examples."""

    num_examples: int
    effective_examples: float
    """Kish's effective sample size of the weights."""
    top_share: float
    """Share of the total weight on the heaviest 1 % of the examples."""


class EvaluationMetrics(TypedDict):
    """``evaluation/metrics.json``: how the models of a round answer the held-out questions."""

    accuracy: dict[str, Accuracy]
    """By the model's name; "base" is the model before training."""
    differences: list[ModelDifference]
    """Each later model minus each earlier one."""
    groups: NotRequired[list[GroupAccuracy]]
    sampled: NotRequired[dict[str, SampledMetrics]]
    """Only with `evaluation.responses_per_question`, as the next."""
    sampled_differences: NotRequired[list[SampledDifference]]
    weights: NotRequired[dict[str, WeightSpread]]
    """Of each training of the round, by its name."""
    num_set_aside: NotRequired[int]
    """Held-out questions that no model was asked, or that an engine failed on."""


class Change(TypedDict):
    """The mean over questions of a quantity in round 0 (`before`) and in this round (`now`)."""

    before: float
    now: float
    standard_error: float | None
    """Of the difference, paired by question where both rounds asked the same ones; null for a single question."""


class Diversity(TypedDict):
    """``diversity.json``: how the answers to the questions of a round spread, beside those of round 0."""

    num_questions: int
    """Of this round; the numbers are over those that both rounds asked, if there are any."""
    entropy: Change
    """Nats."""
    num_answers: Change
    """Distinct answers to a question."""


class Collapse(TypedDict):
    """``collapse.json``: the alarm of a round that learns from majority answers; there is none where it is healthy."""

    said: str
    """What has happened, in a part of a sentence."""
    rule: Literal["fall", "loss", "unchecked loss"]
    """See evaluation/collapse.py; an unchecked loss is a warning."""
    best: int | None
    """The round whose model has the greatest accuracy so far, -1 for the model before training; null: unknown."""


class ComparedArm(Interval):
    """An arm of a comparison. Its interval is over questions, and over seeds if there are several."""

    name: str
    label: str
    """The weighting in a few words."""
    baseline: str | None
    """The arm that it is compared with; null: with none. Then the difference, its bounds and p-values are null."""
    accuracies: list[float]
    """One for each seed."""
    mean: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p_value: float | None
    p_adjusted: float | None
    """By Holm's method, over all comparisons."""
    verdict: Literal["better", "worse", "not shown", "baseline", "no baseline"]
    detectable: NotRequired[float | None]
    """The difference that this design shows with a power of 80 %, uncorrected."""
    power_of_one_point: NotRequired[float | None]
    """The probability that this design shows a difference of 0.01, uncorrected."""
    disagreement: NotRequired[float | None]
    """Share of the questions that either the arm or its baseline alone answers correctly, over all seeds."""
    seed_spread: NotRequired[float | None]
    """Standard deviation over seeds of the difference, if all possible questions were asked; null with one seed."""
    repeated: NotRequired[float | None]
    """Share of the disagreement that is the same with every seed; null with one seed."""
    objective: str
    signal: str
    mapping: str
    exponent: float
    num_examples: int
    effective_examples: float
    """Kish's effective sample size of the weights."""
    top_share: NotRequired[float]
    """Share of the total weight on the heaviest 1 % of the examples."""
    num_tokens: int
    """Trained on by all its trainings."""
    training_seconds: float
    """Of the steps of all its trainings."""
    num_sampled_tokens: NotRequired[int]
    """Sampled for this arm alone; 0 in the first round."""
    collapse: NotRequired[str]
    """Whose trainings are collapsing, and how; only with `labels.source: majority`."""


class ComparedPair(Difference):
    """A further difference of a comparison (`compare.pairs`): the accuracy of `name` minus that of `baseline`."""

    name: str
    baseline: str
    p_value: float
    p_adjusted: float
    """By Holm's method, over all comparisons, those of the arms included."""
    verdict: Literal["better", "worse", "not shown"]


class SamplingCost(TypedDict):
    """What the samples that all arms share cost."""

    num_tokens: int
    seconds: float


class ArmComparison(TypedDict):
    """``comparison.json``: the arms of a comparison after a round."""

    num_questions: int
    seeds: list[int]
    over_seeds: bool
    """Whether the intervals are over seeds too."""
    num_comparisons: int
    base: NotRequired[Accuracy]
    """Of the model before training."""
    sampling: NotRequired[SamplingCost | None]
    """Null where the arms share no samples, or where these were given."""
    arms: list[ComparedArm]
    pairs: NotRequired[list[ComparedPair]]


class StudyTable(TypedDict):
    """A table of a study. Whoever writes it decides how its cells look; numbers are formatted for display."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]


class StudySeries(TypedDict):
    """A curve: x and y of equal length, and the bounds of its band."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: NotRequired[Sequence[float] | None]
    high: NotRequired[Sequence[float] | None]


class StudyFigure(TypedDict):
    """Curves over one pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: list[StudySeries]


class StudyBlock(TypedDict):
    """A text with its label, which may be empty."""

    label: str
    text: str


class StudyText(TypedDict):
    """Texts that the report shows when their title is opened."""

    title: str
    blocks: list[StudyBlock]


class StudyPage(TypedDict):
    """``studies/*.json``: a section of the report. Any program may add one; all but the title may be missing."""

    title: str
    text: NotRequired[str]
    tables: NotRequired[list[StudyTable]]
    curves: NotRequired[list[StudyFigure]]
    texts: NotRequired[list[StudyText]]
