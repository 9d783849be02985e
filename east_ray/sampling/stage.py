"""``samples/`` of a round: responses to its questions, given, or sampled by the pool (pool.py)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import BASE, TRAINED, Config, InputError, SamplesConfig, SamplingConfig
from east_ray.config.adaptive import BudgetConfig
from east_ray.questions.stage import CanUse
from east_ray.records import QUESTIONS, SET_ASIDE
from east_ray.sampling import backends, given
from east_ray.sampling.actor import PoolSettings
from east_ray.sampling.adaptive import check_budget
from east_ray.sampling.backends import Decoding
from east_ray.sampling.deciding import adaptive_of
from east_ray.sampling.journal import adopt, stored_keys, tidy
from east_ray.sampling.line import BudgetLine, SamplingLine
from east_ray.sampling.pool import pool_settings, requests, sample
from east_ray.sampling.standing import standing, unfinished
from east_ray.sampling.waves import is_planned_to_the_end, numbers_by_reason, plan_wave, wanted_numbers
from east_ray.storage import Folder, Stages, counts_by
from east_ray.storage.rounds import Round, is_done, listed

#: The seeds of two rounds differ by this, so that no round repeats the random numbers of another round, even where the
#: seeds of runs are neighbours. A prime.
_ROUND_SEEDS_APART = 1_000_003


def max_prompt_tokens(config: Config, model: str) -> int | None:
    """The most tokens that a prompt may have: one of the context is kept for the response. None: unknown."""
    length = backends.load(config.sampling).context_length(model, config.engines.engine_args)
    return None if length is None else length - 1


def max_evaluated_prompt_tokens(config: Config, model: str) -> int | None:
    """The same for the engines that evaluate, if any do."""
    return max_prompt_tokens(config.on_engines(), model) if config.evaluates_on_engines else None


def check_endpoints(round_zero: Stages, config: Config, model: str) -> None:
    """Raises InputError if a server that is to sample, or to answer for the model before training, cannot be asked.

    If it has answered already, it need not be there.
    """
    pools = []
    if config.samples_itself and config.engines.endpoint and round_zero.record("sampling") is None:
        pools.append(pool_settings(config, decoding_of(config, 0)))
    evaluated, is_measured = config.in_evaluation(), round_zero.record("evaluation") is not None
    if BASE in config.evaluation.endpoints and config.evaluation.questions and not is_measured:
        asked = evaluated.sampling
        greedy = Decoding(1, 0.0, config.evaluation.max_tokens, stop=asked.stop, params=asked.params)
        pools.append(pool_settings(evaluated, greedy, evaluated=BASE))
    for settings in pools:
        settings.backend.check(model, settings.engines, settings.args)


def decoding_of(config: Config, number: int) -> Decoding:
    """How the responses of this round are drawn."""
    named = config.sampling.model_dump(include={one.name for one in fields(Decoding)})
    named["responses_per_question"] = most_responses(config.sampling)
    return Decoding(**named, seed=config.seed + _ROUND_SEEDS_APART * number if config.is_seeded else None)


def most_responses(sampling: SamplingConfig) -> int:
    """The most responses that a question gets."""
    budget = sampling.adaptive and sampling.adaptive.budget
    return budget.max if budget else sampling.responses_per_question


def take_samples(round_: Round, can_use: CanUse) -> None:
    """``samples/``, ``questions/`` and ``set_aside/`` from another sampler's; `can_use` takes a question."""
    config, stages = round_.config, round_.stages
    assert config.samples is not None
    if (record := stages.record("sampling")) is not None and _have_changed(config.samples, record.counts["files"]):
        if any(learner.stages.record("examples") for learner in round_.learners()):
            said = f"{config.samples.path} has changed since it was read"
            raise InputError(f"samples.path: {said}; choose another run_dir, or remove that one")
        round_.progress.say(f"{config.samples.path} has changed, and is read again")
        for stage in ("sampling", "answers"):
            stages.forget(stage)
    if is_done(round_, stages, "sampling", "samples"):
        return
    source = config.samples
    sums, aside = Counter(num_questions=0, num_responses=0, num_truncated=0), Counter[str]()
    with (
        stages.recording("sampling") as sampling,
        stages.recording("questions") as questions,
        round_.progress.stage("samples", None, "questions") as line,
    ):
        for part in given.write_samples(source, stages, can_use):
            aside.update(part.pop("set_aside"))
            sums.update(part)
            line.advance(part.get("num_questions", 0), given.said_of(sums, aside))
        if not sums["num_questions"]:
            raise InputError(f"samples.path: no question can be used: {listed(aside)}{given.one_set_aside(stages)}")
        sampling.counts = {**sums, "files": given.stamp(source)}
        questions.counts = {"asked": sums["num_questions"], "set_aside": dict(sorted(aside.items()))}
    for warning in given.warnings(source, sums):
        round_.progress.say(warning)


def _have_changed(source: SamplesConfig, taken: list[list[Any]]) -> bool:
    """Whether the files of given samples have changed since they were taken."""
    try:
        return given.stamp(source) != taken
    except InputError:  # the files are gone; what was taken of them is in the run directory
        return False


def sample_responses(round_: Round) -> None:
    """``samples/``: every question with all its responses. Only questions that have none yet are sampled."""
    config, stages = round_.config, round_.stages
    if config.samples is not None or is_done(round_, stages, "sampling", "sampling"):
        return
    decoding = decoding_of(config, round_.number)
    models, keep = {TRAINED if round_.number else BASE: round_.sampled_model}, config.sampling.keep_token_ids
    with stages.recording("sampling") as record:
        asked = (stages / "questions").read(QUESTIONS)
        record.starting_s = ask_models(
            round_, "sampling", asked, models, "samples", "set_aside", decoding, record.counts, keep
        )
        if not record.counts["num_questions"]:
            raise InputError(f"no question could be sampled: {listed(record.counts['set_aside'])}")


def ask_models(
    round_: Round,
    stage: str,
    questions: pa.Table,
    models: Mapping[str, str],
    folder: str,
    set_aside: str,
    decoding: Decoding,
    counts: dict[str, Any],
    keep_token_ids: bool = False,
    is_evaluation: bool = False,
) -> float:
    """Ask every model every question, with a progress line; puts the sums over the whole stage into `counts`.

    Returns the seconds in which engines were started and none was ready.
    Questions whose samples are in the folder are not asked again. Each group of models has a pool of its own.
    `is_evaluation`: the models are asked where the evaluation asks them, `evaluation.endpoints` or engines, and every
    question gets the same number of responses.
    """
    samples_folder, aside_folder = round_.stages / folder, round_.stages / set_aside
    pools = list(_pools(round_.config, models, decoding, keep_token_ids, is_evaluation))
    asked = pa.concat_tables([requests(questions, of_pool, settings) for settings, of_pool in pools])
    wanted, by_model = asked["key"], counts_by(asked, "model")
    adaptive = None if is_evaluation else round_.config.sampling.adaptive
    total = None if adaptive is None or adaptive.budget is None else _total_of(round_, adaptive.budget, len(wanted))
    units = (len(wanted), "questions") if total is None else (total, "responses")
    with round_.progress.stage(stage, *units) as line:
        adopt(samples_folder)
        waves = _waves(asked, samples_folder, aside_folder, pools[0][0], round_.stages / "waves")
        del asked  # what is left is handed to the pools, and beyond that the driver needs only the keys
        shown: SamplingLine | None = None
        num_tokens = 0
        for wave in waves:
            before = wave.stored
            if shown is None:
                args = line, by_model, counts_by(wave.left, "model"), decoding, wave.num_responses
                shown = SamplingLine(*args) if total is None else BudgetLine(*args)
            for settings, group in ((one, group) for one, named in pools for group in one.backend.groups(named)):
                of_group = _of_models(wave.left, group, is_all=len(group) == len(models))
                if of_group.num_rows:
                    settings.backend.check(next(iter(group.values())), settings.engines, settings.args)
                    shown.begin_pool(of_group.num_rows, wave.number)
                    of_pool = sample(of_group, group, samples_folder, aside_folder, settings, shown.show)
                    num_tokens += sum(part["num_tokens"] for part in of_pool)
        seconds = line.seconds - line.starting_s
        line.doing("", line.kind)
        whole, aside = _bring_to_rest(samples_folder, aside_folder, wanted, before)
        notes = _notes(whole, aside.num_rows, num_tokens / seconds, is_adaptive=adaptive is not None)
        line.update(len(wanted) if total is None else whole["num_responses"], notes)
    counts.update({name: whole[name] for name in ("num_questions", "num_responses", "num_tokens", "num_truncated")})
    counts["set_aside"] = counts_by(aside, "reason")
    if adaptive is not None:
        counts["most_responses"] = decoding.responses_per_question
        counts["numbers"] = numbers_by_reason(samples_folder)
    return line.starting_s


def _total_of(round_: Round, budget: BudgetConfig, num_questions: int) -> int:
    """The responses that the questions get of a budget; says if it is not spent whole. Raises as `check_budget`."""
    total = check_budget(budget, num_questions)
    if total < budget.total:
        round_.progress.say(
            f"sampling.adaptive.budget: {budget.max}, the most for each of {num_questions:,} questions, is less in all "
            f"than the total of {budget.total:,}"
        )
    return total


def _notes(whole: Mapping[str, int], num_aside: int, tokens_per_s: float, *, is_adaptive: bool) -> str:
    """What the stage's line ends with."""
    notes = [f"{whole['num_responses']:,} responses"]
    if tokens_per_s:
        notes.append(f"{tokens_per_s:,.0f} tokens/s")
    if num_aside:
        notes.append(f"{num_aside:,} set aside")
    if whole["num_dropped"] and not is_adaptive:  # else they are of questions that have got more since
        notes.append(f"{whole['num_dropped']:,} rows of another model or settings dropped")
    return " · ".join(notes)


def _of_models(left: pa.Table, models: Mapping[str, str], *, is_all: bool) -> pa.Table:
    return left if is_all else left.filter(pc.is_in(left["model"], pa.array(list(models))))


class _Wave(NamedTuple):
    """Questions that are asked together: all that are not done or, under a budget, those that the plan gives more."""

    left: pa.Table
    stored: pa.Table
    """What `stored_keys` says of the samples before it."""
    num_responses: int | None = None
    """Responses before it; None: every question gets the same number."""
    number: int = 1
    """Counted from the pilot, which is the first."""


def _waves(
    asked: pa.Table, samples: Folder, set_aside: Folder, settings: PoolSettings, plans: Folder
) -> Iterator[_Wave]:
    """One wave, or several under a budget; each is to be asked before the next is taken."""
    adaptive, stored, aside = settings.adaptive, stored_keys(samples), stored_keys(set_aside)["key"]
    if adaptive is None:
        done = pa.chunked_array([*stored["key"].chunks, *aside.chunks], pa.string())
        asked = asked.filter(pc.invert(pc.is_in(asked["key"], done.unique())))
        yield _Wave(asked, stored)
        return
    keys, budget = asked["key"], adaptive.settings.budget
    while True:
        stands, numbers = standing(stored, keys), None if budget is None else wanted_numbers(plans, keys, budget)
        left, num_responses = unfinished(asked, stands, aside, numbers), pc.sum(stands["num_responses"]).as_py() or 0
        yield _Wave(left, stored, num_responses, len(plans.parts()) + 1)
        if budget is None or is_planned_to_the_end(plans):
            return
        stored, aside = stored_keys(samples, stored), stored_keys(set_aside)["key"]
        plan_wave(plans, samples, standing(stored, keys), budget, adaptive.grader)


def _pools(
    config: Config, models: Mapping[str, str], decoding: Decoding, keep_token_ids: bool, is_evaluation: bool
) -> Iterator[tuple[PoolSettings, Mapping[str, str]]]:
    """The pools that ask the models (name -> path): one for each endpoint, and one for all that engines answer for."""
    if not is_evaluation:
        yield pool_settings(config, decoding, keep_token_ids=keep_token_ids, adaptive=adaptive_of(config)), models
        return
    endpoints = config.evaluation.endpoints
    for name in (name for name in models if name in endpoints):
        yield pool_settings(config, decoding, evaluated=name), {name: models[name]}
    if others := {name: path for name, path in models.items() if name not in endpoints}:
        yield pool_settings(config.on_engines(), decoding), others


def _bring_to_rest(
    folder: Folder, set_aside: Folder, wanted: pa.ChunkedArray, before: pa.Table
) -> tuple[Counter[str], pa.Table]:
    """The sums over all samples of the stage, tidied, and the rows of SET_ASIDE of questions that have none.

    `before` is what `stored_keys` said when the stage began. Raises InputError if a question has neither samples nor a
    reason.
    """
    found = stored_keys(folder, before)
    sums = Counter[str]()
    for part in tidy(folder, wanted, found):
        sums.update(part)
    missing = wanted.filter(pc.invert(pc.is_in(wanted, found["key"].unique()))).unique()
    aside = set_aside.read(SET_ASIDE)
    aside = aside.filter(pc.is_in(aside["key"], missing))
    num_wanted = len(wanted.unique()) - len(missing)
    have_a_reason = pc.sum(pc.is_in(missing, aside["key"].unique()), min_count=0).as_py()
    if have_a_reason < len(missing) or sums["num_questions"] != num_wanted:
        raise InputError(f"{folder}: samples have gone while they were written; run the same command again")
    return sums, aside
