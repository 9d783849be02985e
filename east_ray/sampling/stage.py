"""``samples/`` of a round: responses to its questions, sampled or given."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray import answers
from east_ray.config import BASE, TRAINED, Config, InputError, SamplesConfig
from east_ray.console import StageLine
from east_ray.records import QUESTIONS, SET_ASIDE
from east_ray.sampling import backends, given
from east_ray.sampling.backends import Decoding
from east_ray.sampling.journal import adopt, distinct, keys_by_part, set_aside_keys, tidy
from east_ray.sampling.pool import PoolSettings, pool_settings, requests, sample
from east_ray.storage import Folder, counts_by
from east_ray.storage.rounds import Round, is_done, listed

#: The seeds of two rounds differ by this, so that no round repeats the random numbers of another round, even where the
#: seeds of runs are neighbours. A prime.
_ROUND_SEEDS_APART = 1_000_003


def max_prompt_tokens(config: Config, model: str) -> int | None:
    """The most tokens that a prompt may have: one of the context is kept for the response. None: unknown."""
    length = backends.load(config.sampling).context_length(model, config.engines.engine_args)
    return None if length is None else length - 1


# -------------------------------------------------------------------------------------------------- given responses


def take_samples(round_: Round, can_use: Callable[[str | None], bool] = answers.is_parsable_reference) -> None:
    """``samples/``, ``questions/`` and ``set_aside/`` from responses that another sampler made.

    A question is set aside if `can_use` refuses its reference answer.
    """
    config, stages = round_.config, round_.stages
    assert config.samples is not None
    record = stages.record("sampling")
    if record is not None:
        _check_same_files(config.samples, record.counts["files"])
        is_done(round_, stages, "sampling", "samples")
        return
    sums = dict.fromkeys(("num_questions", "num_responses", "num_truncated"), 0)
    aside: Counter[str] = Counter()
    with (
        stages.recording("sampling") as sampling,
        stages.recording("questions") as questions,
        round_.progress.stage("samples", None, "questions") as line,
    ):
        for part in given.take_samples(config.samples, stages, can_use):
            sums = {name: sums[name] + part[name] for name in sums}
            aside.update(part["set_aside"])
            note = f"{sums['num_responses']:,} responses" + (f" · {aside.total():,} set aside" if aside else "")
            line.advance(part["num_questions"], note)
        if not sums["num_questions"]:
            raise InputError(f"samples.path: no question can be used: {listed(aside)}")
        sampling.counts = sums | {"files": given.stamp(config.samples)}
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


# ------------------------------------------------------------------------------------------------ sampled responses


def sample_responses(round_: Round) -> None:
    """``samples/``: every question with all its responses. Only questions that have none yet are sampled."""
    config, stages = round_.config, round_.stages
    if config.samples is not None or is_done(round_, stages, "sampling", "sampling"):
        return
    questions = (stages / "questions").read(QUESTIONS)
    sampling = config.sampling
    decoding = Decoding(
        responses_per_question=sampling.responses_per_question,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=config.seed + _ROUND_SEEDS_APART * round_.number if sampling.seeded else None,
    )
    models = {TRAINED if round_.number else BASE: round_.sampled_model}
    with stages.recording("sampling") as record:
        ask_models(round_, "sampling", questions, models, "samples", "set_aside", decoding, record.counts)
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
) -> None:
    """Ask every model every question, with a progress line; puts the sums over the whole stage into `counts`.

    Questions whose samples are in the folder are not asked again.
    """
    samples_folder, aside_folder = round_.stages / folder, round_.stages / set_aside
    settings = pool_settings(round_.config, decoding)
    asked = requests(questions, models, settings)
    wanted = set(asked["key"].to_pylist())
    with round_.progress.stage(stage, asked.num_rows, "questions") as line:
        adopt(samples_folder)
        done = wanted & (distinct(keys_by_part(samples_folder)) | set_aside_keys(aside_folder))
        line.go_on(len(done))
        unfinished = asked.filter(pc.invert(pc.is_in(asked["key"], pa.array(done, pa.string()))))
        num_tokens = _sample_groups(unfinished, models, samples_folder, aside_folder, settings, line)
        seconds = line.seconds
        whole, aside = _bring_to_rest(samples_folder, aside_folder, wanted)
        notes = [f"{whole['num_responses']:,} responses"]
        if num_tokens:
            notes.append(f"{num_tokens / seconds:,.0f} tokens/s")
        if aside.num_rows:
            notes.append(f"{aside.num_rows:,} set aside")
        if whole["num_dropped"]:
            notes.append(f"{whole['num_dropped']:,} rows of another model or settings dropped")
        line.update(asked.num_rows, " · ".join(notes))
    counts.update({name: whole[name] for name in ("num_questions", "num_responses", "num_tokens", "num_truncated")})
    counts["set_aside"] = counts_by(aside, "reason")


def _sample_groups(
    asked: pa.Table,
    models: Mapping[str, str],
    folder: Folder,
    set_aside: Folder,
    settings: PoolSettings,
    line: StageLine,
) -> int:
    """Ask each group of models with a pool of its own; returns the number of sampled tokens."""
    sums = Counter[str]()
    for group in settings.backend.groups(models):
        of_group = asked.filter(pc.is_in(asked["model"], pa.array(list(group))))
        for part in sample(of_group, group, folder, set_aside, settings):
            sums.update(part)
            line.advance(
                part["num_questions"] + part["num_set_aside"],
                f"{sums['num_responses']:,} responses · {sums['num_tokens'] / line.seconds:,.0f} tokens/s",
            )
    return sums["num_tokens"]


def _bring_to_rest(folder: Folder, set_aside: Folder, wanted: set[str]) -> tuple[Counter[str], pa.Table]:
    """The sums over all samples of the stage, tidied, and the rows of SET_ASIDE of questions that have none.

    Raises InputError if a question has neither samples nor a reason.
    """
    found = keys_by_part(folder)
    sums = Counter[str]()
    for part in tidy(folder, wanted, found):
        sums.update(part)
    missing = wanted - distinct(found)
    aside = set_aside.read(SET_ASIDE)
    aside = aside.filter(pc.is_in(aside["key"], pa.array(missing, pa.string())))
    if missing - set(aside["key"].to_pylist()) or sums["num_questions"] != len(wanted - missing):
        raise InputError(f"{folder}: samples have gone while they were written; run the same command again")
    return sums, aside
