"""The whole configuration of a run, and the checks between its sections. Nothing here edits a value."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from east_ray.config.base import InputError, Section, check_name, flatten, set_dotted
from east_ray.config.compare import CompareConfig
from east_ray.config.evaluation import EarlyStoppingConfig, EvaluationConfig, StudiesConfig
from east_ray.config.examples import AnswersConfig, SelectionConfig, WeightingConfig
from east_ray.config.messages import sentences
from east_ray.config.questions import PromptConfig, QuestionsConfig, SamplesConfig
from east_ray.config.resuming import ANY_TIME, UNTIL_ANSWERS_USED, UNTIL_MEASURED, UNTIL_WEIGHED, MayChange
from east_ray.config.sampling import EnginePoolConfig, SamplingConfig
from east_ray.config.training import TrainingConfig

#: Settings that a variant or an arm of a comparison may override, besides those of whole sections.
_OVERRIDABLE_SECTIONS, _OVERRIDABLE_KEYS = ("selection", "weighting", "training"), ("seed", "answers.responses")

#: Names of the two models that every round has, beside its variants: the one the run starts from, the one it trains.
BASE, TRAINED = "base", "trained"


class ClusterConfig(Section):
    """Where a run takes place."""

    address: str | None = None
    """Ray cluster to join (auto, HOST:6379). By default RAY_ADDRESS if set, else a local Ray that ends with the run."""
    num_cpus: Annotated[int, Field(ge=1)] | None = None
    """CPUs of a local Ray; by default those of the machine."""


class Config(Section):
    """A run."""

    run_dir: Annotated[str, ANY_TIME]
    """Where everything is written: a local folder, s3://… or gs://…"""
    model: Annotated[str, MayChange(if_empty=True)] = ""
    """The model to improve: a folder in Hugging Face format or a hub name. Only `east-ray weigh` on given `samples`
    works without one."""
    description: Annotated[str, ANY_TIME] = ""
    """A description of the run, in your own words."""
    seed: int = 0
    """Seeds the choice of responses, the order of examples and, with `sampling.seeded`, the sampling."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Rounds of sampling, weighting and training; each samples from the newest model."""
    init_from: Literal["previous", "base"] = "previous"
    """Which model a later round trains: the previous round's, or `model` again."""
    questions_per_round: Literal["same", "fresh"] = "same"
    """same: every round asks the same questions. fresh: each asks the next `questions.max_questions` of the source."""
    early_stopping: EarlyStoppingConfig | None = None
    """End after a round whose model does not answer significantly more of these questions than the one before it."""
    questions: QuestionsConfig | None = None
    """The questions to learn from. Either these or `samples`; `east-ray evaluate` works without both."""
    samples: SamplesConfig | None = None
    """Questions with responses from another sampler; nothing is sampled then."""
    prompt: PromptConfig = PromptConfig()
    """How a question is put to the model."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are drawn."""
    engines: EnginePoolConfig = EnginePoolConfig()
    """The engines that sample and evaluate."""
    answers: Annotated[AnswersConfig, UNTIL_ANSWERS_USED] = AnswersConfig()
    """How final answers are found and compared."""
    selection: Annotated[SelectionConfig, UNTIL_WEIGHED] = SelectionConfig()
    """Which questions become examples."""
    weighting: Annotated[WeightingConfig, UNTIL_WEIGHED] = WeightingConfig()
    """How an example's weight comes from its question's responses."""
    training: Annotated[TrainingConfig, UNTIL_WEIGHED] = TrainingConfig()
    """How the model is trained on the weighted examples."""
    variants: Annotated[dict[str, dict[str, Any]], UNTIL_WEIGHED] = {}
    """Other ways to learn from the same responses, for comparison: name -> overrides of selection, weighting, training
    and answers.responses, e.g. {uniform: {weighting.signal: uniform}}."""
    evaluation: Annotated[EvaluationConfig, UNTIL_MEASURED] = EvaluationConfig()
    """How models are measured."""
    studies: Annotated[StudiesConfig, ANY_TIME] = StudiesConfig()
    """Further analyses of the samples, for the report."""
    compare: Annotated[CompareConfig | None, ANY_TIME] = None
    """What `east-ray compare` trains and evaluates; grids and seeds may be added later."""
    cluster: Annotated[ClusterConfig, ANY_TIME] = ClusterConfig()
    """Where the run takes place."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.questions is not None and self.samples is not None:
            raise ValueError("questions: give one of questions and samples, not both")
        if self.samples is None:
            if self.questions is None and self.evaluation.questions is None:
                raise ValueError("questions: give questions to learn from, samples, or evaluation.questions")
            if not self.model:
                raise ValueError("model: missing; this key is required")
        elif self.rounds > 1:
            raise ValueError("rounds: given samples are one round; a second would need sampling")
        elif self.training.examples == "reference_solutions":
            raise ValueError("training.examples: reference_solutions needs questions, not samples")
        return self

    @model_validator(mode="after")
    def _rounds_make_sense(self) -> Self:
        if self.questions_per_round == "fresh" and not (self.questions and self.questions.max_questions):
            raise ValueError("questions_per_round: fresh needs questions.max_questions, the number of each round")
        return self

    @model_validator(mode="after")
    def _variants_resolve(self) -> Self:
        for name in self.variants:
            check_name(f"variants.{name}", name)
            self.variant(name)
        taken = {BASE, TRAINED}
        for key, names in (("variants", self.variants), ("evaluation.models", self.evaluation.models)):
            if twice := taken.intersection(names):
                raise ValueError(f"{key}: another model is called {twice.pop()}; choose another name")
            taken.update(names)
        if self.compare:
            if self.evaluation.models or self.evaluation.responses_per_question:
                raise ValueError(
                    "compare: a comparison measures accuracy, without evaluation.models and sampled responses"
                )
            if self.variants or self.early_stopping or self.training.examples == "reference_solutions":
                raise ValueError(
                    "compare: cannot be combined with variants, early_stopping or examples: reference_solutions"
                )
            for name in self.compare.arms():
                self.variant(f"{name}-seed-{self.compare.seeds[0]}")
        return self

    def learners(self) -> "dict[str, Config]":
        """Name -> configuration of each training of a round: the run's own and its variants, or a comparison's."""
        names = self.compare.trainings() if self.compare else self.variants
        return ({} if self.compare else {TRAINED: self}) | {name: self.variant(name) for name in names}

    def variant(self, name: str) -> "Config":
        """The configuration of a variant or of a comparison's training: this one with the overrides of that name.

        Raises InputError if a setting cannot be overridden or its value is refused.
        """
        values = self.model_dump() | {"variants": {}, "compare": None}
        where = "compare" if self.compare else f"variants.{name}"
        overrides = self.compare.trainings()[name] if self.compare else self.variants[name]
        for key, value in flatten(overrides):
            if key.partition(".")[0] not in _OVERRIDABLE_SECTIONS and key not in _OVERRIDABLE_KEYS:
                allowed = ", ".join(_OVERRIDABLE_SECTIONS + _OVERRIDABLE_KEYS[:1])
                raise InputError(f"{where}.{key}: only {allowed} and {_OVERRIDABLE_KEYS[1]} may differ here")
            set_dotted(values, key, value)
        return validate(values, f"{where}.")


def validate(values: Mapping[str, Any], source: str) -> Config:
    """A checked configuration; raises InputError, each sentence with `source` before it."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(source + said for said in sentences(error, Config))) from None
