"""What the samples of a round show beside the weights, as pages of its report: ``studies/*.json`` and ``audit/``.

A page is plain JSON, so that anything may add one: title, text; tables of caption, columns and rows; curves of title,
axis labels and series (label, x, y, low, high); texts of title and blocks (label, text).
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import BASE, TRAINED, StudiesConfig
from east_ray.evaluation.abstention import Selective, majority_answers, selective_prediction
from east_ray.records import EXAMPLES, SAMPLED_ANSWERS, SAMPLES
from east_ray.report.audit import Audit, Suspect, audit, write_audit
from east_ray.report.studies import (
    ByEntropy,
    Disagreement,
    Share,
    disagreements,
    errors_by_entropy,
    fewer_responses,
    measure_prefixes,
    weights_over_rounds,
)
from east_ray.selection import SelectionRules
from east_ray.stages import selection_rules
from east_ray.storage import Folder, Stages
from east_ray.storage.rounds import Round, is_done

#: Questions of the audit, and of each direction of a disagreement, that the report shows; ``audit/`` has all of them.
_SHOWN_SUSPECTS, _SHOWN_DISAGREEMENTS = 20, 5
#: Percent of the questions, surest first, of which the table of selective prediction tells the errors.
_SUREST = (25, 50, 75)

Page = dict[str, Any]


def write_findings(round_: Round) -> None:
    """``studies/*.json`` and ``audit/`` of a round whose samples were weighed, or whose models were sampled."""
    if not (_is_weighed(round_) or round_.config.evaluation.responses_per_question):
        return
    wanted = round_.config.studies.model_dump() | {
        "learners": list(round_.config.learners()),
        "is_weighed": _is_weighed(round_),
        "evaluation": round_.config.evaluation.model_dump(mode="json"),
    }
    record = round_.stages.record("studies")
    if record is not None and record.counts == wanted:
        is_done(round_, round_.stages, "studies", "studies")
        return
    with round_.stages.recording("studies") as record, round_.progress.stage("studies", None, "pages") as line:
        record.counts = wanted
        (round_.stages / "studies").clear()
        for name, page in _pages(round_):
            (round_.stages / "studies").write_text(f"{name}.json", json.dumps(page, indent=1) + "\n")
            line.advance(1, page["title"].lower())
        line.update(line.done, "")


def _is_weighed(round_: Round) -> bool:
    """Whether there are samples to weigh; `east-ray evaluate` may have none."""
    has_samples = round_.config.questions is not None or round_.config.samples is not None
    return has_samples and any(one.settings.training.examples == "selected" for one in round_.learners())


def _pages(round_: Round) -> Iterator[tuple[str, Page]]:
    if _is_weighed(round_):
        yield from _pages_of_samples(round_)
    sampled = (round_.stages / "evaluation/sampled_answers").read(SAMPLED_ANSWERS)
    if sampled.num_rows > 0:
        no_answer, seed = round_.config.answers.no_answer, round_.config.seed
        yield "6_selective", selective_page(sampled, no_answer=no_answer, seed=seed)


def _pages_of_samples(round_: Round) -> Iterator[tuple[str, Page]]:
    if round_.number > 0 and (page := _rounds(round_))["tables"]:
        yield "5_weights_over_rounds", page
    if round_.number > 0 and round_.config.compare is not None:  # each training has samples of its own from here on
        return
    first = next(round_.learners())
    settings, weighed = first.settings, first.stages
    samples, rules, wanted = round_.stages / "samples", selection_rules(settings), round_.config.studies
    yield "1_errors", _errors(weighed)
    try:
        yield "2_disagreements", _disagreements(round_.stages, weighed, rules)
    except ValueError as error:  # e.g. every question is answered with one voice
        yield "2_disagreements", _page("Entropy against accuracy", f"There are no two weightings to compare: {error}.")
    audited = audit_round(round_.stages, weighed, rules, wanted)
    write_audit(audited, round_.stages / "audit")
    yield "3_audit", _audit(audited)
    if wanted.fewer_responses:
        most = _responses_per_question(samples)
        sizes = sorted({*(size for size in wanted.fewer_responses if size < most), most})
        yield "4_fewer_responses", _fewer(fewer_responses(measure_prefixes(samples, sizes, rules)))


def _responses_per_question(samples: Folder) -> int:
    """The least number of responses that a question of the first part has: all but one in a thousand have as many."""
    for part in samples.parts():
        return int(pc.min(pc.list_value_length(samples.read(SAMPLES, ["responses"], [part])["responses"])).as_py())
    return 0


def audit_round(stages: Stages, weighed: Stages, rules: SelectionRules, wanted: StudiesConfig) -> Audit:
    """The questions of a round whose reference answer the responses contradict, most suspicious first."""
    return audit(
        stages / "samples",
        weighed / "examples",
        weighed / "discarded",
        rules,
        min_share=wanted.min_share,
        max_rows=wanted.max_suspects,
    )


def _page(title: str, text: str, *, tables: Sequence[Any] = (), curves: Sequence[Any] = (),
          texts: Sequence[Any] = ()) -> Page:  # fmt: skip
    return {"title": title, "text": text, "tables": list(tables), "curves": list(curves), "texts": list(texts)}


def _percent(share: Share | None) -> str:
    if share is None:
        return ""
    return f"{100 * share.share:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _quartiles(title: str, found: ByEntropy) -> dict[str, Any]:
    """A table of a share by quartile of entropy, with 95 % Wilson intervals."""
    rows = [
        [f"{part.min_entropy:.2f} to {part.max_entropy:.2f}", f"{part.share.num_questions:,}", _percent(part.share)]
        for part in found.quartiles
    ]
    if found.overall is not None:
        rows.append(["all", f"{found.overall.num_questions:,}", _percent(found.overall)])
    return {"caption": title, "columns": ["entropy (nats)", "questions", "share, % (95 % interval)"], "rows": rows}


def _errors(weighed: Stages) -> Page:
    found = errors_by_entropy(weighed / "examples", weighed / "discarded")
    kinds = found.num_questions
    counts = {
        "caption": "Questions by kind of error",
        "columns": ["no wrong answer", "too few to tell", "stubborn", "diverse"],
        "rows": [[f"{kinds[kind]:,}" for kind in ("none", "few", "stubborn", "diverse")]],
    }
    return _page(
        "Stubborn and diverse errors",
        "Stubborn: at least half of the wrong answers to a question are one and the same; diverse: they are not. At "
        "equal pass rates entropy tells the two apart.",
        tables=[counts, _quartiles("Stubborn questions among those with wrong answers, by entropy", found.stubborn)],
    )


def _disagreements(stages: Stages, weighed: Stages, rules: SelectionRules) -> Page:
    found = disagreements(weighed / "examples", stages / "samples", rules, max_questions=_SHOWN_DISAGREEMENTS)
    correlation = "none" if found.rank_correlation is None else f"{found.rank_correlation:.2f}"
    return _page(
        "Entropy against accuracy",
        f"Over {found.num_questions:,} kept questions the weights by entropy and by 1 - pass rate (exponent 1) have "
        f"a rank correlation of {correlation} and differ by {found.mean_difference:.2f} on average. The questions "
        "below are those where they differ most.",
        texts=[
            *(_disagreement("heavier by entropy", one) for one in found.heavier_by_entropy),
            *(_disagreement("heavier by accuracy", one) for one in found.heavier_by_accuracy),
        ],
    )


def _disagreement(direction: str, one: Disagreement) -> dict[str, Any]:
    said = (
        f"{direction}: weight {one.entropy_weight:.2f} by entropy ({one.entropy:.2f} nats), {one.accuracy_weight:.2f} "
        f"by accuracy (pass rate {one.pass_rate:.2f}); errors: {one.errors}"
    )
    blocks = [{"label": f"question {one.question_id}, reference {one.reference_answer}", "text": one.question}]
    for cluster in one.clusters:
        answer = "no answer" if cluster.answer is None else cluster.answer
        label = f"{cluster.num_responses} × {answer}" + (", correct" if cluster.is_correct else "")
        blocks.append({"label": label, "text": cluster.response or ""})
    return {"title": said, "blocks": blocks}


def _audit(found: Audit) -> Page:
    shown = found.suspects[:_SHOWN_SUSPECTS]
    table = {
        "caption": f"The {len(shown)} most suspicious",
        "columns": ["question", "reference", "most responses say", "share, %", "reference's share, %"],
        "rows": [
            [one.question_id, one.reference_answer, one.dominant_answer, f"{100 * one.share:.0f}",
             f"{100 * one.reference_share:.0f}"]
            for one in shown
        ],
    }  # fmt: skip
    return _page(
        "Reference answers that may be wrong",
        f"In {found.num_suspicious:,} of {found.num_questions:,} questions at least {100 * found.min_share:.0f} % of "
        "the responses agree on an answer that is not the reference. Either the reference is wrong or the model makes "
        "the same mistake again and again; only a person can tell. All of them are in audit/.",
        tables=[table] if shown else [],
        texts=[_suspect(one) for one in shown],
    )


def _suspect(one: Suspect) -> dict[str, Any]:
    blocks = [
        {"label": "question", "text": one.question},
        {"label": f"{one.dominant_answer}, {100 * one.share:.0f} %", "text": one.dominant_response or ""},
        {"label": f"reference {one.reference_answer}, {100 * one.reference_share:.0f} %",
         "text": one.reference_response or "(no response reaches it)"},
    ]  # fmt: skip
    return {"title": f"{one.question_id}: {one.dominant_answer} or {one.reference_answer}?", "blocks": blocks}


def _fewer(sizes: Sequence[Any]) -> Page:
    columns = ["responses", "tokens", "mean entropy", "corrected", "rank correlation", "mean weight difference",
               "kept or not differs, % (95 % interval)"]  # fmt: skip
    rows = [
        [f"{one.num_responses}", _number(one.num_tokens, ",.0f"), f"{one.mean_entropy:.3f}",
         f"{one.mean_corrected_entropy:.3f}", _number(one.rank_correlation, ".3f"),
         _number(one.mean_weight_difference, ".3f"), _percent(one.decision_changes)]
        for one in sizes
    ]  # fmt: skip
    series = [
        {"label": label, "x": [one.num_responses for one in sizes], "y": [getattr(one, name) for one in sizes],
         "low": None, "high": None}
        for label, name in (("plain", "mean_entropy"), ("corrected", "mean_corrected_entropy"))
    ]  # fmt: skip
    return _page(
        "How many responses are enough",
        "Entropies and weights from the first responses to each question against those from all. The plain estimate "
        "of an entropy is too low with few responses; the corrected one is that of Chao, Wang and Jost (2013).",
        tables=[{"caption": "From the first responses", "columns": columns, "rows": rows}],
        curves=[{"title": "Mean entropy from the first responses", "x_label": "responses a question",
                 "y_label": "entropy (nats)", "series": series}],
    )  # fmt: skip


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _rounds(round_: Round) -> Page:
    compare, learners = round_.config.compare, round_.config.learners()
    names = [next(iter(learners))]
    if compare is not None:  # the first training of each arm whose weights are not all 1
        of_arms = [f"{arm}-seed-{compare.seeds[0]}" for arm in compare.arms()]
        names = [name for name in of_arms if learners[name].weighting.signal != "uniform"]
    columns = ["round", "questions", "min", "25 %", "50 %", "75 %", "max", "weight 0, %", "also in the round before",
               "rank correlation with it", "fell to 0, %"]  # fmt: skip
    return _page(
        "Weights over the rounds",
        "How the weights move from round to round. A weight that falls to 0 is of a question that all responses now "
        "answer alike.",
        tables=[
            {
                "caption": "Weights of each round" if compare is None else f"Weights of each round: {name}",
                "columns": columns,
                "rows": _weights_of_rounds(round_, name),
            }
            for name in names
        ],
    )


def _weights_of_rounds(round_: Round, name: str) -> list[list[str]]:
    folders = [round_.directory.round(number).learner(name) / "examples" for number in range(round_.number + 1)]
    rows = []
    for number, one in enumerate(
        weights_over_rounds([folder.read(EXAMPLES, ["question_id", "weight"]) for folder in folders])
    ):
        since = one.since_previous
        rows.append(
            [f"{number}", f"{one.num_questions:,}", *(f"{value:.2f}" for value in one.quantiles), _percent(one.is_zero),
             f"{since.num_kept_in_both:,}" if since else "", _number(since.rank_correlation if since else None, ".2f"),
             _percent(since.became_zero) if since else ""]
        )  # fmt: skip
    return rows


def selective_page(sampled: pa.Table, no_answer: Literal["cluster", "exclude"], seed: int) -> Page:
    """records.SAMPLED_ANSWERS of several models -> whether entropy tells their wrong majority answers from right ones.

    Where a server may withhold an answer (`abstain_above` of /v1/solve), this says what that would have gained.
    """
    models = sorted(pc.unique(sampled["model"]).to_pylist(), key=lambda name: (name != BASE, name != TRAINED, name))
    found = {
        name: selective_prediction(
            *majority_answers(sampled.filter(pc.equal(sampled["model"], name)), no_answer=no_answer), seed=seed
        )
        for name in models
    }
    columns = ["model", "questions", "wrong, %", "AUROC (95 % interval)",
               *(f"wrong of the surest {share} %, % (95 % interval)" for share in _SUREST)]  # fmt: skip
    rows = [
        [name, f"{one.num_questions:,}", f"{100 * one.num_wrong / one.num_questions:.1f}", _auroc(one),
         *(_risk(one, share / 100) for share in _SUREST)]
        for name, one in found.items()
    ]  # fmt: skip
    series = [
        {"label": name, "x": list(one.coverages), "y": list(one.risks), "low": list(one.risks_low),
         "high": list(one.risks_high)}
        for name, one in found.items()
    ]  # fmt: skip
    return _page(
        "Does entropy tell which answers are wrong",
        "The answer of most responses, against the entropy of all their answers, on held-out questions. AUROC is the "
        "chance that a wrong answer has a higher entropy than a right one: 0.5 says nothing, 1 tells them apart "
        "without fail. The curve shows what is wrong among the surest questions, if only these are answered; no answer "
        "at all counts as wrong.",
        tables=[{"caption": "Entropy as a predictor of wrong answers", "columns": columns, "rows": rows}],
        curves=[{"title": "Risk and coverage", "x_label": "share of questions answered, surest first",
                 "y_label": "share of these answered wrongly", "series": series}],
    )  # fmt: skip


def _auroc(one: Selective) -> str:
    if one.auroc is None:
        return "none: all alike"
    return f"{one.auroc:.3f} ({one.auroc_low:.3f} to {one.auroc_high:.3f})"


def _risk(one: Selective, coverage: float) -> str:
    at = one.coverages.index(coverage)
    return f"{100 * one.risks[at]:.1f} ({100 * one.risks_low[at]:.1f} to {100 * one.risks_high[at]:.1f})"
