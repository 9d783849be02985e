"""The files that people read of a run: ``report.html``, the cards of its models, ``studies/`` and ``audit/``.

Here is also which sections the report has, in their order, and those of a few lines.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from east_ray.config import BASE, Config, InputError
from east_ray.config.files import as_yaml, dump
from east_ray.records import SAMPLED_ANSWERS, EvaluationMetrics, StudyPage
from east_ray.report import sections
from east_ray.report.audit import Audit, audit, audit_page, write_audit
from east_ray.report.html import shown
from east_ray.report.labels import label_blocks
from east_ray.report.page import Block, Fold, Sections, Table, render
from east_ray.report.plots import curves
from east_ray.report.responses import adaptive_blocks, number_of_responses, sampling_of
from east_ray.report.result import cost_line, result_blocks, result_round
from east_ray.report.rounds import diversity_blocks
from east_ray.report.steps import step_blocks
from east_ray.report.studies.adaptive import adaptive_page
from east_ray.report.studies.fewer_responses import fewer_responses_page
from east_ray.report.studies.shares import errors_page, rounds_page, selective_page
from east_ray.report.studies.weights import disagreements_page
from east_ray.report.summary import RoundSummary, arm_labels, describe, summarize
from east_ray.report.weights import weight_blocks
from east_ray.report.wording import interval, percent
from east_ray.selection import SelectionRules
from east_ray.storage import Folder, RunDirectory, StageRecord, Stages, locate
from east_ray.storage.rounds import Learner, Round, is_done

#: The file of a card, where the Hugging Face hub looks for it.
_CARD = "README.md"
#: Sections of the configuration that say how examples came about; no others belong in a data set's card.
_OF_THE_DATA = ("prompt", "answers", "labels", "selection", "weighting")
#: What gives the rules by which a training's examples were selected.
RulesOf = Callable[[Learner], SelectionRules]


def write_report(directory: RunDirectory) -> str:
    """Write ``report.html`` into the run directory; returns its path."""
    directory.folder.write_text("report.html", render({directory.uri: _sections(directory)}))
    return directory.address(directory.folder / "report.html")


def write_side_by_side(directories: Sequence[RunDirectory], path: str) -> str:
    """Write one HTML file with the tables and figures of several runs in columns; returns its path.

    `path` may be local or an address. Raises InputError for fewer than two runs, or for one that is named twice.
    """
    names = [directory.uri for directory in directories]
    if len(set(names)) != len(names) or len(names) < 2:
        raise InputError(f"side by side: expected at least two different runs, found {', '.join(names) or 'none'}")
    filesystem, inner = locate(path, is_output=True)
    file = PurePosixPath(inner)
    page = render({directory.uri: _sections(directory, in_full=False) for directory in directories})
    return Folder(filesystem, str(file.parent)).write_text(file.name, page)


def _sections(directory: RunDirectory, *, in_full: bool = True) -> Sections:
    """The sections of a run, as far as it has got; not `in_full` leaves out its questions and its configuration."""
    config, rounds = directory.config, summarize(directory)
    result = result_round(rounds)
    found: dict[tuple[str, str], Iterable[Block]] = {
        ("The result", "What came out"): result_blocks(config, rounds),
        ("The result", "What it cost"): filter(None, [cost_line(config, rounds)]),
        ("The run", "What was run"): _what_was_run(config, rounds),
    }
    for summary in rounds:
        parts = _of_round(directory, summary, in_full=in_full, is_told=summary is result)
        found |= {(f"Round {summary.number}", title): blocks for title, blocks in parts.items()}
    found["Over the rounds", "Accuracy and weights from round to round"] = sections.blocks_over_rounds(rounds)
    found["Over the rounds", "How various the answers are from round to round"] = diversity_blocks(rounds)
    if in_full:
        found["Configuration", "Every setting"] = [Fold("config.yaml", [("", dump(config))], max_chars=1 << 18)]
    return {section: blocks for section, parts in found.items() if (blocks := list(parts))}


def _of_round(
    directory: RunDirectory, summary: RoundSummary, *, in_full: bool, is_told: bool
) -> dict[str, Iterator[Block]]:
    """The sections of a round; `is_told`: its verdicts are in the result."""
    parts = {
        "Questions kept and discarded": sections.funnel_blocks(summary),
        **({"Responses to a question": adaptive_blocks(found)} if (found := sampling_of(summary)) else {}),
        "Labels": label_blocks(summary),
        "Entropy and weights": weight_blocks(summary),
        **({"Questions to look at": sections.question_blocks(directory, summary)} if in_full else {}),
        "Training": step_blocks(summary),
        "Accuracy on held-out questions": sections.accuracy_blocks(summary, is_told=is_told),
        "Comparison": sections.comparison_blocks(summary, is_told=is_told),
        "Time and tokens": _cost(summary),
    }
    return parts | {shown(study["title"], 100): _study(study) for study in summary.studies}


def _what_was_run(config: Config, rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    """The description and a table of settings."""
    if config.description:
        yield config.description
    training, weighting = config.training, config.weighting
    source, held_out = config.questions or config.samples, config.evaluation.questions
    was_trained = any(one.record for summary in rounds for one in summary.trainings)
    trained = [
        [
            "training",
            f"{training.objective.upper()}, epochs: {training.epochs}, {training.examples_per_step} examples a step, "
            f"learning rate {training.learning_rate:g}" + (", adapters" if training.lora else ""),
        ],
        ["trainings in a round", f"{len(config.learners()) if source else 0:,}"],
    ]
    rows = [
        ["model", config.model or "none: the samples were weighed only"],
        ["questions", str(_address(source))],
        ["responses", _responses(config)],
        ["answers", f"equal by {config.answers.equivalence}"],
        [
            "weighting",
            f"{weighting.signal}, {weighting.mapping}, a = {weighting.exponent:g}"
            + (f", entropy by {weighting.entropy_estimator}" if weighting.signal == "entropy" else ""),
        ],
        *(trained if was_trained else []),
        ["held-out questions", _address(held_out) or "none"],
        ["rounds", f"{len(rounds)} of {config.rounds}"],
        ["seed", str(config.seed)],
    ]
    yield Table("", ["setting", "value"], rows)


def _responses(config: Config) -> str:
    if config.samples is not None:
        return "given"
    if config.training.examples == "reference_solutions":
        return "none: the questions' reference solutions are trained on"
    sampling, worked = config.sampling, len(config.prompt.worked_questions)
    return (
        f"{number_of_responses(config)} a question, temperature {sampling.temperature:g}, "
        f"at most {sampling.max_tokens:,} tokens" + (f", after {worked} worked questions" if worked else "")
    )


def _cost(summary: RoundSummary) -> Iterator[Block]:
    """A row for each stage, and one for the trainings of each arm."""
    rows = [
        _row(stage, [record], record.counts.get("num_responses"), record.counts.get("num_tokens"))
        for stage, record in summary.records.items()
        if stage != "training"
    ]
    shown_as = arm_labels(summary)
    for one in summary.arms:
        trainings = [each for each in summary.trainings if each.arm == one.arm and each.record is not None]
        if trainings:
            name = f"training: {shown_as[one.arm]}" + (f" ({len(trainings)} seeds)" if len(trainings) > 1 else "")
            records = [each.record for each in trainings if each.record is not None]
            num_tokens, in_steps = (
                sum(each.num_tokens for each in trainings),
                sum(each.seconds or 0 for each in trainings),
            )
            rows.append(_row(name, records, None, num_tokens, in_steps))
    columns = ["stage", "seconds", "starting", "working", "responses", "tokens", "tokens/s"]
    title = (
        "Seconds of each stage: those in which engines or workers were started, and those of work; "
        "tokens per second of work, of a training in its steps"
    )
    yield Table(title, columns, rows)


def _row(
    name: str,
    records: Sequence[StageRecord],
    num_responses: int | None,
    num_tokens: int | None,
    seconds_for_rate: float | None = None,
) -> list[str]:
    seconds, starting_s = (sum(record.seconds for record in records), sum(record.starting_s for record in records))
    working_s = seconds - starting_s
    of_rate = seconds_for_rate or working_s
    rate = f"{num_tokens / of_rate:,.0f}" if num_tokens and of_rate > 0 else ""
    times = [f"{seconds:,.1f}", f"{starting_s:,.1f}" if starting_s else "", f"{working_s:,.1f}"]
    return [name, *times, *(f"{count:,}" if count else "" for count in (num_responses, num_tokens)), rate]


def _study(page: StudyPage) -> Iterator[Block]:
    """Its text, tables, curves and folded texts, as far as it has them."""
    if text := page.get("text"):
        yield text
    for table in page.get("tables", []):
        rows = [[_cell(value) for value in row] for row in table["rows"]]
        yield Table(table["caption"], [str(column) for column in table["columns"]], rows)
    for figure in page.get("curves", []):
        yield curves(figure["title"], figure["series"], figure["x_label"], figure["y_label"])
    for folded in page.get("texts", []):
        yield Fold(folded["title"], [(block["label"], block["text"]) for block in folded["blocks"]])


def _cell(value: str | int | float | None) -> str:
    """Whole numbers with separators, others to four digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# -------------------------------------------------------------------------------------------------- the cards of models


def write_cards(round_: Round) -> None:
    """Write the card of every trained model of the round that has none, or one without the latest metrics."""
    text = (round_.stages / "evaluation").read_text("metrics.json")
    metrics: EvaluationMetrics | None = json.loads(text) if text else None
    for learner in round_.learners():
        model = learner.stages / "model"
        if learner.stages.record("training") is None or not model.exists:
            continue
        measured = _measured(learner, metrics)
        card = model.read_text(_CARD)
        if card is None or measured not in card:
            model.write_text(_CARD, _card(learner, measured))


def _measured(learner: Learner, metrics: EvaluationMetrics | None) -> str:
    """A Markdown table of the model's accuracy and that of the model before training; or that there is none yet."""
    accuracies = metrics["accuracy"] if metrics else {}
    rows = [
        f"| {shown} | {row['num_questions']} | {percent(row['accuracy'])} % | {interval(row)} % |"
        for name, shown in ((BASE, "before training"), (learner.name, "this model"))
        if (row := accuracies.get(name)) is not None
    ]
    head = ["| model | questions | accuracy, greedy | 95 % interval |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else "Not measured yet."


def _card(learner: Learner, measured: str) -> str:
    config, record = learner.settings, learner.stages.record("examples")
    return _rendered(
        "model_card.md.jinja",
        config,
        label=f"{describe(config)}, from {Path(config.model).name}",
        number=learner.round.number,
        initial_model=learner.round.initial_model,
        num_responses=f"{number_of_responses(config)} times" if config.samples is None else "several times",
        kept=record.counts["kept"] if record else 0,
        discarded=record.counts["discarded"] if record else {},
        measured=measured,
    )


def dataset_card(
    config: Config, number: int, file_name: str, num_rows: int, shape: str, columns: Mapping[str, str]
) -> str:
    """The card of a file of examples of round `number`; `columns` has its columns with their types."""
    label, told = describe(config), {"file_name": file_name, "num_rows": num_rows, "shape": shape, "columns": columns}
    return _rendered("dataset_card.md.jinja", config, _OF_THE_DATA, label=label, number=number, **told)


def _rendered(template: str, config: Config, sections: Collection[str] | None = None, **values: Any) -> str:
    """A card; of the configuration, `config_yaml` has these sections, or all of them. Every value is as `published`."""
    import jinja2

    loader = jinja2.PackageLoader("east_ray.report", ".")
    environment = jinja2.Environment(  # noqa: S701 - Markdown
        loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=published
    )
    told = published(config.model_dump())
    told_in_yaml = {name: section for name, section in told.items() if sections is None or name in sections}
    if sections is not None:
        told_in_yaml["training"] = {"objective": config.training.objective}
    sources = {"source": told["questions"] or told["samples"], "held_out": told["evaluation"]["questions"]}
    addresses = {name: one and (one["path"] or one.get("hub")) for name, one in sources.items()}
    about = {"config": told, "config_yaml": as_yaml(told_in_yaml), "version": metadata.version("east-ray")}
    return str(environment.get_template(template).render(**about, **addresses, **values))


#: What is before and after the user's name and password in an address, which may be anywhere in a text, and its query.
_ADDRESS = re.compile(r"(?P<kind>\w[\w+.-]*://)(?:[^/?#@\s]*@)*(?P<rest>[^?#\s]*)(?:[?#]\S*)?")
#: A path of several names that is no hub's NAMESPACE/NAME, and no text with a slash such as "/no_think {question}".
_LOCAL_PATH = re.compile(r"(?:(?:~\w*|\.{1,2})/|/[^/\s]+/)[^\n{}]*")


def published(value: Any, key: str = "") -> Any:
    """A setting, or all below it, as strangers may read it; `key` is its name.

    Addresses lose user, password and query, which may hold credentials; of local paths there is the last name alone.

    >>> published({"path": "s3://KEY:SECRET@bucket/q.jsonl?region=x", "run_dir": "runs/a", "model": "/home/ann/m"})
    {'path': 's3://bucket/q.jsonl', 'run_dir': 'a', 'model': 'm'}
    """
    if isinstance(value, Mapping):
        return {name: published(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [published(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    if "://" in value:
        return _ADDRESS.sub(r"\g<kind>\g<rest>", value)
    is_path = key.rpartition(".")[2] in ("path", "run_dir", "trusted") or _LOCAL_PATH.fullmatch(value)
    return PurePosixPath(value).name if is_path else value


def _address(source: Any) -> str | None:
    """The file or hub data set of a section that names questions."""
    return source and (source.path or getattr(source, "hub", None))


# ----------------------------------------------------------------------------------------------------- studies/, audit/


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
    weighed, samples, answers = first.stages, round_.stages / "samples", round_.stages / "answers"
    yield "1_errors", errors_page(weighed)
    num_responses = first.settings.answers.responses
    yield "2_disagreements", disagreements_page(weighed / "examples", samples, answers, num_responses)
    audited = audit_round(round_.stages, weighed, first.settings)
    write_audit(audited, round_.stages / "audit")
    yield "3_audit", audit_page(audited)
    if sizes := round_.config.studies.fewer_responses:
        yield "4_fewer_responses", fewer_responses_page(samples, answers, sizes, rules_of(first))
    if numbers := round_.config.studies.adaptive:
        most, no_answer = round_.config.sampling.responses_per_question, first.settings.answers.no_answer
        folders = weighed / "examples", weighed / "discarded"
        yield "4_adaptive", adaptive_page(*folders, numbers, most, no_answer, round_.config.seed)


def audit_round(stages: Stages, weighed: Stages, settings: Config) -> Audit:
    """The audit of a round's samples and answers in `stages`, by the examples and settings of one of its trainings."""
    num_responses, min_share = settings.answers.responses, settings.labels.min_share
    folders = [stages / "samples", stages / "answers", weighed / "examples", weighed / "discarded"]
    return audit(*folders, num_responses=num_responses, min_share=min_share, max_rows=settings.studies.max_suspects)
