"""The studies of a round: ``studies/*.json``, pages that its report shows, and ``audit/``."""

import json
from collections.abc import Callable, Iterator

from east_ray.config import Config
from east_ray.records import SAMPLED_ANSWERS, StudyPage
from east_ray.report.audit import Audit, audit, audit_page, write_audit
from east_ray.report.studies.fewer_responses import fewer_responses_page
from east_ray.report.studies.shares import errors_page, selective_page
from east_ray.report.studies.weights import disagreements_page, rounds_page
from east_ray.selection import SelectionRules
from east_ray.storage import Stages
from east_ray.storage.rounds import Round, is_done

#: What gives the rules by which a training's examples were selected.
RulesOf = Callable[[Config], SelectionRules]


def write_findings(round_: Round, rules_of: RulesOf) -> None:
    """``studies/*.json`` and ``audit/`` of a round whose samples were weighed, or whose models were sampled.

    `rules_of` is called only if `studies.fewer_responses` asks what fewer responses would have selected.
    """
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
        for name, page in _pages(round_, rules_of):
            (round_.stages / "studies").write_text(f"{name}.json", json.dumps(page, indent=1) + "\n")
            line.advance(1, page["title"].lower())
        line.advance(0)


def _is_weighed(round_: Round) -> bool:
    """Whether there are samples to weigh; `east-ray evaluate` may have none."""
    has_samples = round_.config.questions is not None or round_.config.samples is not None
    return has_samples and any(one.settings.training.examples == "selected" for one in round_.learners())


def _pages(round_: Round, rules_of: RulesOf) -> Iterator[tuple[str, StudyPage]]:
    """Pages by the name of their file; the report shows them in the order of these names."""
    if _is_weighed(round_):
        if round_.number > 0 and (page := rounds_page(round_))["tables"]:
            yield "5_weights_over_rounds", page
        if round_.number == 0 or round_.config.compare is None:  # later each training of a comparison has own samples
            yield from _pages_of_samples(round_, rules_of)
    sampled = (round_.stages / "evaluation/sampled_answers").read(SAMPLED_ANSWERS)
    if sampled.num_rows > 0:
        no_answer, seed = round_.config.answers.no_answer, round_.config.seed
        yield "6_selective", selective_page(sampled, no_answer=no_answer, seed=seed)


def _pages_of_samples(round_: Round, rules_of: RulesOf) -> Iterator[tuple[str, StudyPage]]:
    """The studies of the samples, by the examples of the round's first training."""
    first = round_.learners()[0]
    weighed, num_responses = first.stages, first.settings.answers.responses
    samples, answers = round_.stages / "samples", round_.stages / "answers"
    yield "1_errors", errors_page(weighed)
    examples = weighed / "examples"
    yield "2_disagreements", disagreements_page(examples, samples, answers, num_responses)
    audited = audit_round(round_.stages, weighed, first.settings)
    write_audit(audited, round_.stages / "audit")
    yield "3_audit", audit_page(audited)
    if sizes := round_.config.studies.fewer_responses:
        yield "4_fewer_responses", fewer_responses_page(samples, answers, sizes, rules_of(first.settings))


def audit_round(stages: Stages, weighed: Stages, settings: Config) -> Audit:
    """The audit of a round's samples and answers in `stages`, by the examples and settings of one of its trainings."""
    studies, num_responses = settings.studies, settings.answers.responses
    folders = [stages / "samples", stages / "answers", weighed / "examples", weighed / "discarded"]
    return audit(*folders, num_responses=num_responses, min_share=studies.min_share, max_rows=studies.max_suspects)
