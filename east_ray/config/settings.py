"""The whole configuration of a run, its comparison, and the checks between sections."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field

from east_ray.config import devices, sections
from east_ray.config.base import ANY_TIME, InputError, MayChange, Name, Section, flatten, hint, set_dotted, validated
from east_ray.config.labels import LabelsConfig
from east_ray.config.plan import PlanConfig
from east_ray.config.prompting import PromptConfig
from east_ray.config.samples import SamplesConfig
from east_ray.config.studies import StudiesConfig
from east_ray.config.weighting import MappingName, SignalName, WeightingConfig

#: The setting decides what is made of the samples.
_UNTIL_WEIGHED = MayChange(until=("examples",))
#: The setting also decides how models are measured; "base" is the evaluation of the base model in a comparison.
_UNTIL_MEASURED = MayChange(until=("examples", "evaluation", "base"))
#: The same, and the stage `answers` has used it.
_UNTIL_ANSWERS_USED = MayChange(until=_UNTIL_MEASURED.until, remakes=("answers",))
#: The setting decides what is taken from given samples.
_UNTIL_SAMPLES_WEIGHED = MayChange(until=_UNTIL_WEIGHED.until, remakes=("sampling", "answers"))

#: Names of the two models that every round has, beside its variants: the one the run starts from, the one it trains.
BASE, TRAINED = "base", "trained"


class ClusterConfig(Section):
    """Where a run takes place."""

    address: str | None = None
    """Ray cluster to join (auto, HOST:6379). By default RAY_ADDRESS if set, else a local Ray that ends with the run."""
    num_cpus: Annotated[int, Field(ge=1)] | None = None
    """CPUs of a local Ray; by default those of the machine."""


class GridConfig(Section):
    """Trainings of a comparison: every combination of these lists. Each has a name such as sft-entropy-a1.5."""

    objectives: Annotated[list[sections.ObjectiveName], Field(min_length=1)] = ["sft"]
    """Training objectives."""
    signals: Annotated[list[SignalName], Field(min_length=1)] = ["uniform", "entropy"]
    """Signals, which the weight grows with."""
    exponents: Annotated[list[Annotated[float, Field(ge=-100, le=100)]], Field(min_length=1)] = [1.0]
    """Exponents of every signal but uniform."""
    mappings: Annotated[list[MappingName], Field(min_length=1)] = ["power"]
    """Mappings of every signal but uniform."""
    overrides: dict[str, Any] = {}
    """Settings of labels, selection, weighting, training and answers.responses for all of them, e.g.
    {training.beta: 0.1}."""
    suffix: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+)?$")] = ""
    """Added to the names, e.g. -lr1, to tell apart grids that differ only in their overrides."""

    def arms(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, overrides) of each combination."""
        for objective, signal in product(self.objectives, self.signals):
            for mapping, exponent in product(self.mappings, self.exponents) if signal != "uniform" else [("", 0.0)]:
                overrides: dict[str, Any] = {"training.objective": objective, "weighting.signal": signal}
                name = f"{objective}-{signal}"
                if mapping:
                    overrides |= {"weighting.mapping": mapping, "weighting.exponent": float(exponent)}
                    name += f"-a{exponent:g}" + (f"-{mapping}" if mapping != "power" else "")
                yield name.replace(":", ".") + self.suffix, overrides | self.overrides


class CompareConfig(Section):
    """Trainings from one set of samples, each with several seeds, evaluated on the same questions."""

    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0, 1, 2, 3, 4]
    """Every training is repeated with each seed, which decides the responses trained on and their order."""
    grids: Annotated[list[GridConfig], Field(min_length=1)] = [GridConfig()]
    """What is compared."""
    baseline: str | None = None
    """Name of the training that every other is compared with, e.g. sft-uniform. By default each is compared with the
    one with uniform weights, the same objective and the same overrides."""
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    """Further differences to test, each a training and the one that it is compared with, e.g.
    [[sft-entropy-a1-drop, sft-entropy-a1]]. p-values are adjusted over them too."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trainings at the same time; by default as many as the CPUs and GPUs of the cluster allow at the start."""
    models_at_once: Annotated[int, Field(ge=1)] = 8
    """Models, and tokenized examples of each, that are kept at a time: evaluated together, then removed."""
    keep_models: bool = False
    """Keep the models after their evaluation."""

    def _problems(self) -> Iterator[str]:
        decided_by_lists = ("training.objective", "weighting.signal", "weighting.mapping", "weighting.exponent")
        keys = [key for grid in self.grids for key, _ in flatten(grid.overrides)]
        if mine := [key for key in keys if key.startswith(decided_by_lists)]:
            yield f"grids: {mine[0]} is decided by the lists of the grid, not by its overrides"
        if len(set(self.seeds)) < len(self.seeds):
            yield "seeds: each may be given once"
        names = Counter(name for grid in self.grids for name, _ in grid.arms())
        name, times = names.most_common(1)[0]
        if times > 1:
            yield f"grids: two trainings are called {name}; give one grid a suffix"
        if self.baseline is not None and self.baseline not in names:
            near = hint(self.baseline, list(names))
            yield f"baseline: no training is called {self.baseline}{near or '; known: ' + ', '.join(names)}"
        if unknown := [name for pair in self.pairs for name in pair if name not in names]:
            near = hint(unknown[0], list(names))
            yield f"pairs: no training is called {unknown[0]}{near or '; known: ' + ', '.join(names)}"
        if same := [one for one, other in self.pairs if one == other]:
            yield f"pairs: {same[0]} cannot be compared with itself"

    def arms(self) -> dict[str, dict[str, Any]]:
        """Name -> overrides of everything that is compared."""
        return dict(arm for grid in self.grids for arm in grid.arms())

    def baselines(self) -> dict[str, str | None]:
        """Name of each arm -> name of the arm that it is compared with; None for a baseline, or if there is none."""
        if self.baseline is not None:
            return {name: self.baseline if name != self.baseline else None for name in self.arms()}
        alike, uniform = {}, dict[tuple[str, str], str]()
        for grid in self.grids:
            for name, overrides in grid.arms():
                alike[name] = (overrides["training.objective"], json.dumps(grid.overrides, sort_keys=True))
                if overrides["weighting.signal"] == "uniform":
                    uniform.setdefault(alike[name], name)
        return {name: found if (found := uniform.get(kind)) != name else None for name, kind in alike.items()}

    def trainings(self) -> dict[str, dict[str, Any]]:
        """Name -> overrides of each arm with each seed."""
        arms = product(self.arms().items(), self.seeds)
        return {f"{name}-seed-{seed}": overrides | {"seed": seed} for (name, overrides), seed in arms}


class Config(Section):
    """A run."""

    run_dir: Annotated[str, ANY_TIME]
    """Where everything is written: a local folder, s3://… or gs://…"""
    model: Annotated[str, MayChange(if_empty=True)] = ""
    """The model to improve: a folder in Hugging Face format or a hub name. Only `weigh` of given samples needs none."""
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
    early_stopping: sections.EarlyStoppingConfig | None = None
    """End after a round whose model does not answer significantly more of these questions than the one before it."""
    questions: sections.QuestionsConfig | None = None
    """The questions to learn from. Either these or `samples`; `east-ray evaluate` works without both."""
    samples: Annotated[SamplesConfig | None, _UNTIL_SAMPLES_WEIGHED] = None
    """Questions with responses from another sampler; nothing is sampled then."""
    prompt: PromptConfig = PromptConfig()
    """How a question is put to the model."""
    sampling: sections.SamplingConfig = sections.SamplingConfig()
    """How responses are drawn."""
    engines: sections.EnginePoolConfig = sections.EnginePoolConfig()
    """The engines that sample and evaluate."""
    answers: Annotated[sections.AnswersConfig, _UNTIL_ANSWERS_USED] = sections.AnswersConfig()
    """How final answers are found and compared."""
    labels: Annotated[LabelsConfig, _UNTIL_WEIGHED] = LabelsConfig()
    """Which answer counts as right, where references may be wrong or missing."""
    selection: Annotated[sections.SelectionConfig, _UNTIL_WEIGHED] = sections.SelectionConfig()
    """Which questions become examples."""
    weighting: Annotated[WeightingConfig, _UNTIL_WEIGHED] = WeightingConfig()
    """How an example's weight comes from its question's responses."""
    training: Annotated[sections.TrainingConfig, _UNTIL_WEIGHED] = sections.TrainingConfig()
    """How the model is trained on the weighted examples."""
    variants: Annotated[dict[Name, dict[str, Any]], _UNTIL_WEIGHED] = {}
    """Other ways to learn from the same responses, for comparison: name -> overrides of labels, selection, weighting,
    training and answers.responses, e.g. {uniform: {weighting.signal: uniform}}."""
    evaluation: Annotated[sections.EvaluationConfig, _UNTIL_MEASURED] = sections.EvaluationConfig()
    """How models are measured."""
    studies: Annotated[StudiesConfig, ANY_TIME] = StudiesConfig()
    """Further analyses of the samples, for the report."""
    compare: Annotated[CompareConfig | None, ANY_TIME] = None
    """What `east-ray compare` trains and evaluates; grids and seeds may be added later."""
    cluster: Annotated[ClusterConfig, ANY_TIME] = ClusterConfig()
    """Where the run takes place."""
    plan: Annotated[PlanConfig, ANY_TIME] = PlanConfig()
    """What `east-ray plan` and `east-ray compare --plan` reckon with."""

    @property
    def is_seeded(self) -> bool:
        """Whether each request has a seed of its own: `sampling.seeded`, where auto stands for what the engines are."""
        if self.sampling.seeded != "auto":
            return self.sampling.seeded
        return self.engines.endpoint is None and not devices.use_gpus(self.engines)

    def settled(self, stored: "Config | None" = None) -> "Config":
        """The configuration without `sampling.seeded: auto`: as in the `stored` one of the same run, if there is one.

        So a run that goes on with engines on another device keeps its seeds.
        """
        if self.sampling.seeded != "auto":
            return self
        seeded = (stored or self).is_seeded
        return self.model_copy(update={"sampling": self.sampling.model_copy(update={"seeded": seeded})})

    def _problems(self) -> Iterator[str]:
        if self.questions is not None and self.samples is not None:
            yield "questions: give one of questions and samples, not both"
        if self.samples is None:
            if self.questions is None and self.evaluation.questions is None:
                yield "questions: give questions to learn from, samples, or evaluation.questions"
            if not self.model:
                yield "model: missing; this key is required"
        elif self.rounds > 1:
            yield "rounds: given samples are one round; a second would need sampling"
        elif self.training.examples == "reference_solutions":
            yield "training.examples: reference_solutions needs questions, not samples"
        elif self.sampling.adaptive is not None:
            yield "sampling.adaptive: nothing is sampled where samples are given"
        if self.training.examples == "reference_solutions" and self.labels.decides:
            yield "labels: training.examples: reference_solutions trains on the solutions as they stand"
        if self.questions_per_round == "fresh" and not (self.questions and self.questions.max_questions):
            yield "questions_per_round: fresh needs questions.max_questions, the number of each round"
        self.in_evaluation()
        yield from self.labels.problems_of_rounds(self.rounds)
        yield from self._problems_of_references()
        yield from self._problems_of_models()
        yield from self._problems_of_endpoints()

    def _problems_of_references(self) -> Iterator[str]:
        sources: dict[str, SamplesConfig | sections.QuestionsConfig | None] = {
            "evaluation.questions": self.evaluation.questions,
            "early_stopping.questions": None if self.early_stopping is None else self.early_stopping.questions,
        }
        if self.labels.source == "reference":
            sources |= {"questions": self.questions, "samples": self.samples}
            sources["samples.questions"] = None if self.samples is None else self.samples.questions
        for name, section in sources.items():
            if section is not None and section.reference_answer_column is None:
                is_learned = name in ("questions", "samples", "samples.questions")
                why = "null needs labels.source: majority" if is_learned else "held-out questions need references"
                yield f"{name}.reference_answer_column: {why}"

    def _problems_of_endpoints(self) -> Iterator[str]:
        is_sampled_there, endpoints = self.sampling.backend == "endpoint", self.evaluation.endpoints
        if is_sampled_there and self.engines.endpoint is None:
            yield "engines.endpoint: missing; sampling.backend: endpoint needs its url and model"
        if self.engines.endpoint is not None and not is_sampled_there:
            yield f"engines.endpoint: given, but sampling.backend is {self.sampling.backend}; make that endpoint"
        if is_sampled_there and self.rounds > 1:
            yield (
                "rounds: an endpoint has one model, and each round samples from the model of the one before; run one "
                "round, serve its model, and run the next with that as `model`"
            )
        names = self.evaluated_models()
        if unknown := [name for name in endpoints if name not in names]:
            near = hint(unknown[0], names) or f"; known: {', '.join(names)}"
            yield f"evaluation.endpoints: no model is called {unknown[0]}{near}"
        if endpoints and self.compare:
            yield "evaluation.endpoints: cannot be combined with compare, whose models are made and removed in turn"
        if self.rounds > 1 and (made := [name for name in endpoints if name in self.learners()]):
            yield f"evaluation.endpoints.{made[0]}: every round makes another model, and an endpoint has one"

    def _problems_of_models(self) -> Iterator[str]:
        names = list(self.variants)
        if self.compare:
            if self.evaluation.models or self.evaluation.responses_per_question:
                yield "compare: cannot be combined with evaluation.models and sampled responses"
            if self.variants or self.early_stopping or self.training.examples == "reference_solutions":
                yield "compare: cannot be combined with variants, early_stopping and reference_solutions"
            names = [f"{name}-seed-{self.compare.seeds[0]}" for name in self.compare.arms()]
        for name in names:
            self.variant(name)
        taken = {BASE, TRAINED}
        for key, models in (("variants", self.variants), ("evaluation.models", self.evaluation.models)):
            if twice := taken.intersection(models):
                yield f"{key}: another model is called {twice.pop()}; choose another name"
            taken.update(models)

    def in_evaluation(self) -> "Config":
        """The configuration by which held-out questions are asked: with `prompt`, `sampling.stop` and `sampling.params`
        as `evaluation` has them. Raises InputError if a setting in `evaluation.prompt` is refused.
        """
        own, sampling = self.evaluation, self.sampling
        prompt = validated(PromptConfig, self.prompt.model_dump() | own.prompt, "evaluation.prompt.")
        told = {"stop": own.stop, "params": own.params}
        told = {name: value for name, value in told.items() if value is not None}
        return self.model_copy(update={"prompt": prompt, "sampling": sampling.model_copy(update=told)})

    def training_prompt(self) -> PromptConfig:
        """How the questions of the examples are put to the model that is trained."""
        return self.prompt if self.training.prompt == "same" else self.prompt.plain()

    def learners(self) -> "dict[str, Config]":
        """Name -> configuration of each training of a round: the run's own and its variants, or a comparison's."""
        names = self.compare.trainings() if self.compare else self.variants
        return ({} if self.compare else {TRAINED: self}) | {name: self.variant(name) for name in names}

    def evaluated_models(self) -> list[str]:
        """Names of the models that the evaluation measures: the one before training, others, and those of a round."""
        learners = [] if self.questions is None and self.samples is None else self.learners()
        return [BASE, *self.evaluation.models, *learners]

    @property
    def evaluates_on_engines(self) -> bool:
        """Whether the evaluation measures a model that no endpoint answers for."""
        return self.evaluation.questions is not None and not set(self.evaluated_models()) <= set(
            self.evaluation.endpoints
        )

    def on_engines(self) -> "Config":
        """The configuration by which engines answer for models that no endpoint does: vLLM's, if one samples."""
        if self.engines.endpoint is None:
            return self
        sampling = self.sampling.model_copy(update={"backend": "vllm"})
        engines = self.engines.model_copy(update={"endpoint": None})
        return self.model_copy(update={"sampling": sampling, "engines": engines})

    @property
    def samples_itself(self) -> bool:
        """Whether questions are asked of a model to learn from its responses."""
        selected = any(learner.training.examples == "selected" for learner in self.learners().values())
        return self.questions is not None and selected

    @property
    def samples_on_engines(self) -> bool:
        """Whether they are asked of engines."""
        return self.samples_itself and self.engines.endpoint is None

    def variant(self, name: str) -> "Config":
        """The configuration of a variant or of a comparison's training. Raises InputError if an override is refused."""
        values = self.model_dump() | {"variants": {}, "compare": None}
        set_dotted(values, "evaluation.endpoints", {})  # they are the run's, whose models a variant does not know
        where = "compare" if self.compare else f"variants.{name}"
        for key, value in flatten(self.compare.trainings()[name] if self.compare else self.variants[name]):
            if not re.match(r"(labels|selection|weighting|training)(\.|$)|seed$|answers\.responses$", key):
                may = "labels, selection, weighting, training, seed and answers.responses"
                raise InputError(f"{where}.{key}: only {may} may differ here")
            set_dotted(values, key, value)
        return validated(Config, values, f"{where}.")
