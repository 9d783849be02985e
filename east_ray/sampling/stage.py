"""``samples/`` of a round: responses to its questions, given, or sampled by the pool (pool.py)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import BASE, TRAINED, Config, InputError, SamplesConfig
from east_ray.questions.stage import CanUse
from east_ray.records import QUESTIONS, SET_ASIDE
from east_ray.sampling import backends, given
from east_ray.sampling.backends import Decoding
from east_ray.sampling.journal import adopt, stored_keys, tidy
from east_ray.sampling.line import SamplingLine
from east_ray.sampling.pool import PoolSettings, pool_settings, requests, sample
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
    return Decoding(**named, seed=config.seed + _ROUND_SEEDS_APART * number if config.is_seeded else None)


def take_samples(round_: Round, can_use: CanUse) -> None:
    """``samples/``, ``questions/`` and ``set_aside/`` from another sampler's; `can_use` takes a reference answer."""
    config, stages = round_.config, round_.stages
    assert config.samples is not None
    if (record := stages.record("sampling")) is not None:
        _check_same_files(config.samples, record.counts["files"])
    if is_done(round_, stages, "sampling", "samples"):
        return
    sums, aside = Counter(num_questions=0, num_responses=0, num_truncated=0), Counter[str]()
    with (
        stages.recording("sampling") as sampling,
        stages.recording("questions") as questions,
        round_.progress.stage("samples", None, "questions") as line,
    ):
        for part in given.write_samples(config.samples, stages, can_use):
            aside.update(part.pop("set_aside"))
            sums.update(part)
            note = f"{sums['num_responses']:,} responses" + (f" · {aside.total():,} set aside" if aside else "")
            line.advance(part["num_questions"], note)
        if not sums["num_questions"]:
            raise InputError(f"samples.path: no question can be used: {listed(aside)}")
        sampling.counts = {**sums, "files": given.stamp(config.samples)}
        questions.counts = {"asked": sums["num_questions"], "set_aside": dict(sorted(aside.items()))}


def _check_same_files(source: SamplesConfig, taken: list[list[Any]]) -> None:
    """Raises InputError if the given samples have changed since they were taken."""
    try:
        differ = given.stamp(source) != taken
    except InputError:  # the files are gone; what was taken of them is in the run directory
        return
    if differ:
        raise InputError(
            f"samples.path: {source.path} has changed since it was read; choose another run_dir, or remove that one"
        )


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
    `is_evaluation`: the models are asked where the evaluation asks them, `evaluation.endpoints` or engines.
    """
    samples_folder, aside_folder = round_.stages / folder, round_.stages / set_aside
    pools = list(_pools(round_.config, models, decoding, keep_token_ids, is_evaluation))
    asked = pa.concat_tables([requests(questions, of_pool, settings) for settings, of_pool in pools])
    wanted = asked["key"]
    with round_.progress.stage(stage, asked.num_rows, "questions") as line:
        adopt(samples_folder)
        before, aside_before = stored_keys(samples_folder), stored_keys(aside_folder)
        done = pa.chunked_array([*before["key"].chunks, *aside_before["key"].chunks], pa.string())
        unfinished = asked.filter(pc.invert(pc.is_in(wanted, done.unique())))
        shown = SamplingLine(line, counts_by(asked, "model"), counts_by(unfinished, "model"), decoding)
        del asked  # what is left is handed to the pools, and beyond that the driver needs only the keys
        num_tokens = 0
        for settings, group in ((one, group) for one, named in pools for group in one.backend.groups(named)):
            is_all = len(group) == len(models)
            of_group = unfinished if is_all else unfinished.filter(pc.is_in(unfinished["model"], pa.array(list(group))))
            if of_group.num_rows:
                settings.backend.check(next(iter(group.values())), settings.engines, settings.args)
                shown.begin_pool()
                of_pool = sample(of_group, group, samples_folder, aside_folder, settings, shown.show)
                num_tokens += sum(part["num_tokens"] for part in of_pool)
        seconds = line.seconds - line.starting_s
        line.doing("", line.kind)
        whole, aside = _bring_to_rest(samples_folder, aside_folder, wanted, before)
        notes = [f"{whole['num_responses']:,} responses"]
        if num_tokens:
            notes.append(f"{num_tokens / seconds:,.0f} tokens/s")
        if aside.num_rows:
            notes.append(f"{aside.num_rows:,} set aside")
        if whole["num_dropped"]:
            notes.append(f"{whole['num_dropped']:,} rows of another model or settings dropped")
        line.update(len(wanted), " · ".join(notes))
    counts.update({name: whole[name] for name in ("num_questions", "num_responses", "num_tokens", "num_truncated")})
    counts["set_aside"] = counts_by(aside, "reason")
    return line.starting_s


def _pools(
    config: Config, models: Mapping[str, str], decoding: Decoding, keep_token_ids: bool, is_evaluation: bool
) -> Iterator[tuple[PoolSettings, Mapping[str, str]]]:
    """The pools that ask the models (name -> path): one for each endpoint, and one for all that engines answer for."""
    if not is_evaluation:
        yield pool_settings(config, decoding, keep_token_ids=keep_token_ids), models
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
