"""The examples of a training as one file, JSONL or Parquet, and LlamaFactory's dataset_info.json beside it."""

import fnmatch
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from east_ray.config import TRAINED, Config, InputError, PromptConfig
from east_ray.config.base import validated
from east_ray.config.files import merge
from east_ray.export.shapes import MAX_DRAWN, Form, Shape, drawn
from east_ray.storage import Folder, RunDirectory, Stages, locate
from east_ray.storage.few_shot import with_examples_read
from east_ray.training.dataset import trained_responses

#: What is read of examples/.
_COLUMNS = ["question_id", "question", "weight", "entropy", "pass_rate", "chosen", "chosen_finish_reason"]
_COLUMNS += ["rejected", "rejected_finish_reason"]
_COLUMNS += ["more_chosen.list.element.text", "more_chosen.list.element.finish_reason"]
#: What rows of older runs lack.
_OLDEST: dict[str, Any] = {"more_chosen": None}
#: Rows that are read, and written, at a time: responses may be long.
_BATCH_ROWS = 64
_ROW_GROUP_BYTES = 16 << 20
_INFO = "dataset_info.json"


@dataclass(frozen=True)
class Source:
    """A training of a round, whose examples are exported: its settings and its folders; `round` has the samples."""

    settings: Config
    stages: Stages
    round: Stages
    number: int
    uri: str
    directory: Folder

    @property
    def examples(self) -> Folder:
        """What is exported."""
        return self.stages / "examples"

    def form(self, shape: Shape, overrides: Sequence[str], *, as_text: bool | None, bare: bool) -> Form:
        """The form of a shape. The prompts are put as in training, with overrides such as prompt.system=…

        By default (`as_text` None) they are text where the run's model is asked with text. Raises InputError for an
        override of another setting.
        """
        for override in overrides:
            if not override.startswith("prompt."):
                raise InputError(f"{override}: an export changes nothing of a run but prompt.…, how a question is put")
        values = merge({"prompt": self.settings.training_prompt().model_dump()}, overrides)["prompt"]
        prompt = validated(PromptConfig, values, "prompt.")
        prompt = with_examples_read(self.settings.model_copy(update={"prompt": prompt})).prompt
        if as_text is None:
            record = self.stages.record("questions") or self.round.record("questions")
            found = record.counts.get("prompt_style") if record and prompt.style == "auto" else prompt.style
            as_text = found == "text"
        return Form(shape, prompt, as_text, bare)


@dataclass
class Written:
    """A file of examples: its path, how many rows it has, and what should be known of them."""

    path: str
    num_rows: int = 0
    notes: list[str] = field(default_factory=list)


def source_of(directory: RunDirectory, number: int, name: str | None, stage: str = "examples") -> Source:
    """A training of a round of a run, with this stage done; by default the run's own. Raises InputError."""
    learners = directory.config.learners()
    if name is None and len(learners) == 1:
        (name,) = learners
    found = TRAINED if name is None else name
    if found not in learners:
        said = "name the training" if name is None else f"--training {name}: there is no such training"
        raise InputError(f"{said}: {directory.uri} has {', '.join(learners)}")
    round_ = directory.round(number)
    stages = round_.learner(found)
    if stages.record(stage) is None:
        verb = {"examples": "weigh", "training": "train"}[stage]
        raise InputError(f"round {number} of {directory.uri} has no {stage} yet: run `east-ray {verb}` first")
    return Source(learners[found], stages, round_, number, directory.uri, directory.folder)


def write(source: Source, form: Form, path: str, *, resample: int | None = None, seed: int = 0) -> Written:
    """Write the examples in a form to a .jsonl or .parquet file, local or remote, which they replace.

    `resample` draws so many examples in proportion to their weights instead; their weight is then 1. Raises InputError
    as `_target` does, for a file that cannot be written or read, and if there is nothing to write.
    """
    if resample is not None and resample > MAX_DRAWN:
        raise InputError(f"--resample {resample}: expected at most {MAX_DRAWN}")
    target, name = _target(source, path)
    written, seen = Written(path), Counter[str]()
    examples = _examples(source, form, seen)
    if resample is not None:
        weights = [example["weight"] for example in _examples(source, form, Counter())]
        if not sum(weights) > 0:
            raise InputError(f"--resample {resample}: no example of {source.uri} has a weight above 0")
        examples = _repeated(examples, drawn(weights, resample, seed).tolist())
    entry, file = form.llamafactory_entry(name), PurePosixPath(name)
    try:
        entries = _entries(target)
        with _WRITERS[file.suffix](target, name, form.schema) as add:
            for rows in _by_batch(row for example in examples for row in form.rows(example)):
                add(rows)
                written.num_rows += len(rows)
            if not written.num_rows:
                needs = "with a wrong response" if seen["without rejected"] else "to export"
                raise InputError(f"{source.uri} has no example {needs}")
        if entry is not None:
            target.write_text(_INFO, json.dumps(entries | {file.stem: entry}, indent=2, ensure_ascii=False) + "\n")
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"--output {path}: cannot write there ({error})") from error
    written.notes = list(_notes(form, seen, is_resampled=resample is not None))
    return written


def _target(source: Source, path: str) -> tuple[Folder, str]:
    """The folder and the name of a file to write.

    Raises InputError for a path with another ending, a folder, what the run reads, and what else is in its directory.
    """
    if (ending := PurePosixPath(path.partition("?")[0]).suffix) not in _WRITERS:
        raise InputError(f"--output {path}: expected a file that ends in {' or '.join(_WRITERS)}, found {ending!r}")
    try:
        filesystem, inner = locate(path, is_output=True)
        if filesystem.get_file_info(inner).type is pafs.FileType.Directory:
            raise InputError(f"--output {path}: this is a folder; expected a file")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--output {path}: cannot write there ({error})") from error
    place, kind = _real(inner, filesystem), filesystem.type_name
    run, own = (_real(one.path, filesystem) for one in (source.directory, source.stages / "export"))
    is_here = source.directory.filesystem.type_name == kind
    is_export = is_here and place.is_relative_to(own)
    if is_here and place.is_relative_to(run) and not is_export:
        raise InputError(f"--output {path}: in the directory of the run nothing but {own} is for exports")
    for read in _paths(source.settings.model_dump()):
        there, pattern = locate(read)
        also = _real(pattern, there)
        is_among = place.is_relative_to(also) or fnmatch.fnmatchcase(str(place), str(also))
        if there.type_name == kind and (place == also or (is_among and not is_export)):
            raise InputError(f"--output {path}: the run reads {read}; choose another file")
    return Folder(filesystem, str(PurePosixPath(inner).parent)), PurePosixPath(inner).name


def _real(path: str, filesystem: pafs.FileSystem) -> PurePosixPath:
    """A path without symbolic links."""
    return PurePosixPath(os.path.realpath(path) if isinstance(filesystem, pafs.LocalFileSystem) else path)


def _paths(settings: Mapping[str, Any]) -> Iterator[str]:
    """Every file or folder that a run with these settings reads."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _paths(value)
        elif name == "path" and value is not None:
            yield str(value)


def _examples(source: Source, form: Form, seen: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """The examples that the shape has a row for, one for each chosen response, which share its weight.

    Counts in `seen` what should be known of them. Raises InputError for a weight that is negative or not finite.
    """
    per_question = _responses_per_question(source)
    for batch in _batches(source, _COLUMNS, _BATCH_ROWS):
        for row in map(_OLDEST.__or__, batch.to_pylist()):
            if not (np.isfinite(row["weight"]) and row["weight"] >= 0):
                said = f"the weight of {row['question_id']} is {row['weight']}; expected a finite number of at least 0"
                raise InputError(f"{source.examples}: {said}")
            if form.shape is Shape.PREFERENCE and row["rejected"] is None:
                seen["without rejected"] += 1
                continue
            for example in trained_responses(row, per_question):
                seen["of weight 0"] += example["weight"] == 0
                texts = [example[name] or "" for name in form.responses]
                seen["thinking"] += not form.as_text and any("</think>" in text for text in texts)
                seen["cut"] += sum(example[f"{name}_finish_reason"] == "length" for name in form.responses)
                yield example


def _responses_per_question(source: Source) -> float:
    """The mean over the questions that are trained on, as `training.dataset` counts them."""
    num_questions = num_responses = 0
    for batch in _batches(source, ["weight", "more_chosen.list.element.finish_reason"], 1 << 16):
        rows = [row for row in batch.to_pylist() if row["weight"] or not source.settings.training.skip_zero_weight]
        num_questions += len(rows)
        num_responses += sum(1 + len(row.get("more_chosen") or ()) for row in rows)
    return num_responses / num_questions if num_questions else 1.0


def _batches(source: Source, columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of examples/. Raises InputError for a file that cannot be read."""
    for part in source.examples.parts():
        try:
            yield from source.examples.batches(columns, [part], max_rows=max_rows)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{part}: cannot be read ({error})") from error


def _repeated(examples: Iterator[Mapping[str, Any]], counts: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """Each example as often as it is drawn, with weight 1: how often it is there stands for its weight."""
    for example, count in zip(examples, counts, strict=True):
        yield from itertools.repeat({**example, "weight": 1.0}, count)


def counted(number: int, what: str) -> str:
    """A number of things in words, e.g. 1 row or 1,000 rows."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _notes(form: Form, seen: Mapping[str, int], *, is_resampled: bool) -> Iterator[str]:
    if num := seen["without rejected"]:
        yield f"without a wrong response, and left out: {counted(num, 'example')}; the weights of others are unchanged"
    if (num := seen["of weight 0"]) and not is_resampled:
        yield f"of weight 0: {counted(num, 'example')}; give a trainer that reads no weights a file with --resample"
    if form.bare and not is_resampled:
        yield "the rows have no weights, and nothing else stands for them: add --resample, or leave --bare out"
    if num := seen["cut"]:
        yield f"cut off (finish_reason length): {counted(num, 'response')}; most trainers would teach to end there"
    if num := seen["thinking"]:
        said = "many chat templates drop what is before it in an assistant's turn; look at the tokens, or add --text"
        yield f"with </think>: {counted(num, 'example')}; {said}"
    if form.as_text and form.prompt.template.endswith("{question}"):
        put = r"""'prompt.template="Question: {question}\nAnswer: "'"""
        yield f"nothing separates question and answer: add e.g. {put}"
    if form.has_system_column:
        yield "the system message is a column that LlamaFactory alone reads; for others write it into prompt.template"
    if form.bare and form.as_text and form.prompt.system:
        yield "the system message is left out: write it into prompt.template, or leave --bare out"
    if form.bare and not form.as_text and form.prompt.template_variables:
        yield "the variables of the chat template are left out: give them to the trainer, or leave --bare out"
    if form.llamafactory_entry("") is None:
        yield f"LlamaFactory reads {form.shape} only as text: add --text for it"


def _entries(target: Folder) -> dict[str, Any]:
    """The entries of the dataset_info.json that is there already. Raises InputError if it is no such file."""
    try:
        entries = json.loads(target.read_text(_INFO) or "{}")
    except ValueError:
        entries = None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InputError(f"{target}/{_INFO} is there and is not LlamaFactory's; choose another folder for --output")
    return entries


def _by_batch(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(itertools.islice(rows, _BATCH_ROWS)):
        yield batch


_Add = Callable[[Sequence[Mapping[str, Any]]], object]


@contextmanager
def _as_jsonl(target: Folder, name: str, schema: pa.Schema) -> Iterator[_Add]:
    with target.writing(name) as stream:
        # In ASCII, since many readers take U+0085 and U+2028 for ends of lines.
        yield lambda rows: stream.write("".join(json.dumps(row) + "\n" for row in rows).encode())


@contextmanager
def _as_parquet(target: Folder, name: str, schema: pa.Schema) -> Iterator[_Add]:
    with target.writing(name) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        group: list[pa.Table] = []

        def add(rows: Sequence[Mapping[str, Any]]) -> None:
            group.append(pa.Table.from_pylist(list(rows), schema))
            if sum(table.nbytes for table in group) > _ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(group))
                group.clear()

        yield add
        if group:
            writer.write_table(pa.concat_tables(group))


_WRITERS = {".jsonl": _as_jsonl, ".parquet": _as_parquet}
