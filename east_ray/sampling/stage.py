"""samples/ of a round: responses to its questions, asked or given."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import BASE, TRAINED, InputError, SamplesConfig
from east_ray.records import QUESTIONS, SET_ASIDE
from east_ray.sampling import given, given_files
from east_ray.sampling.decoding import Decoding
from east_ray.sampling.journal import adopt, sampled_keys, set_aside_keys, tidy
from east_ray.sampling.pool import by_architecture, requests, sample
from east_ray.storage import counts_by
from east_ray.storage.rounds import Round, is_done, listed


def take_samples(round_: Round) -> None:
    """``samples/``, ``questions/`` and ``set_aside/`` from responses that another sampler made."""
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
        for part in given.take_samples(config.samples, stages):
            sums = {name: sums[name] + part[name] for name in sums}
            aside.update(part["set_aside"])
            note = f"{sums['num_responses']:,} responses" + (f" · {aside.total():,} set aside" if aside else "")
            line.advance(part["num_questions"], note)
        if not sums["num_questions"]:
            raise InputError(f"samples.path: no question can be used: {listed(aside)}")
        sampling.counts = sums | {"files": given_files.stamp(config.samples)}
        questions.counts = {"asked": sums["num_questions"], "set_aside": dict(sorted(aside.items()))}


def _check_same_files(source: SamplesConfig, taken: list[list[Any]]) -> None:
    """Raises InputError if the given samples are there and are not those that were taken."""
    try:
        differ = given_files.stamp(source) != taken
    except InputError:  # removed since; what was taken of them is here
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
    questions = (stages / "questions").read(QUESTIONS)
    sampling = config.sampling
    decoding = Decoding(
        responses_per_question=sampling.responses_per_question,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        # Another seed each round, or the same questions would meet the same random numbers again.
        seed=config.seed + 1_000_003 * round_.number if sampling.seeded else None,
    )
    with stages.recording("sampling") as record:
        ask_models(round_, "sampling", questions, {TRAINED if round_.number else BASE: round_.sampled_model},
                "samples", "set_aside", decoding, record.counts)  # fmt: skip
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
    """Run the sampling stage with its progress line and put the sums over the whole stage into `counts`."""
    config, samples_folder, aside_folder = round_.config, round_.stages / folder, round_.stages / set_aside
    asked = requests(questions, models, config.prompt, decoding)
    sums = dict.fromkeys(("num_questions", "num_set_aside", "num_responses", "num_tokens"), 0)
    wanted = set(asked["key"].to_pylist())
    with round_.progress.stage(stage, asked.num_rows, "questions") as line:
        adopt(samples_folder)
        line.go_on(len(wanted & (sampled_keys(samples_folder) | set_aside_keys(aside_folder))))
        parts = (
            part
            for alike in by_architecture(models)
            for part in sample(
                asked.filter(pc.is_in(asked["model"], pa.array(list(alike)))),
                alike,
                samples_folder,
                aside_folder,
                engines=config.engines,
                prompt=config.prompt,
                decoding=decoding,
            )
        )
        for part in parts:
            sums = {name: sums[name] + int(part[name]) for name in sums}
            line.advance(
                int(part["num_questions"] + part["num_set_aside"]),
                f"{sums['num_responses']:,} responses · {sums['num_tokens'] / line.seconds:,.0f} tokens/s",
            )
        seconds, whole = line.seconds, Counter[str]()
        for part in tidy(samples_folder, wanted):
            whole.update(part)
        missing = wanted - sampled_keys(samples_folder)
        aside = aside_folder.read(SET_ASIDE)
        aside = aside.filter(pc.is_in(aside["key"], pa.array(missing, pa.string())))
        if missing - set(aside["key"].to_pylist()):
            raise InputError(f"{samples_folder}: samples have gone while they were written; run the same command again")
        notes = [f"{whole['num_responses']:,} responses"]
        if sums["num_tokens"]:
            notes.append(f"{sums['num_tokens'] / seconds:,.0f} tokens/s")
        if aside.num_rows:
            notes.append(f"{aside.num_rows:,} set aside")
        if whole["num_dropped"]:
            notes.append(f"{whole['num_dropped']:,} rows of another model or settings dropped")
        line.update(asked.num_rows, " · ".join(notes))
    counts.update({name: whole[name] for name in ("num_questions", "num_responses", "num_tokens", "num_truncated")})
    counts["set_aside"] = counts_by(aside, "reason")
