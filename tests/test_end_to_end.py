"""One small run of the whole loop on real Ray, vLLM and DeepSpeed, and what must be true of what it leaves behind."""

import json
import math
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from east_ray import cli
from east_ray.config import InputError
from east_ray.config.files import load
from east_ray.records import DISCARDED, EXAMPLES, GREEDY_ANSWERS, QUESTIONS, SAMPLES, SET_ASIDE
from east_ray.sampling.backends import Decoding
from east_ray.sampling.journal import tidy
from east_ray.sampling.pool import pool_settings, requests, sample
from east_ray.storage import Folder, locate

ROOT = Path(__file__).parent.parent
NUM_QUESTIONS, NUM_RESPONSES, NUM_TEST = 72, 16, 120


def east_ray(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "east_ray", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=580, cwd=ROOT)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory, quickstart: Path) -> list[str]:
    """The quick start on fewer questions, with one that is too long for the model and one without a reference."""
    folder = tmp_path_factory.mktemp("run")
    rows = [json.loads(line) for line in (quickstart / "train.jsonl").read_text().splitlines()]
    rows = random.Random(0).sample(rows, NUM_QUESTIONS)
    rows.append({"question": "Tom has 5 pens. " * 300 + "How many pens has he?", "answer": "#### 5"})
    rows.append({"question": "Tom has some pens. How many?", "answer": "Nobody knows."})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        str(ROOT / "jobs" / "quickstart.yaml"),
        f"run_dir={folder / 'run'}",
        f"questions.path={folder / 'train.jsonl'}",
        f"sampling.responses_per_question={NUM_RESPONSES}",
        f"evaluation.questions.max_questions={NUM_TEST}",
        "weighting.exponent=1.5",
    ]


@pytest.fixture(scope="module")
def finished(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    result = east_ray("run", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def run_dir(arguments: list[str], finished: object) -> Path:
    return Path(arguments[1].removeprefix("run_dir="))


def read(path: Path, schema: Any) -> list[dict[str, Any]]:
    table = Folder(*locate(str(path))).read(schema)
    assert table.schema.equals(schema), "the columns are stable"
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_the_terminal_shows_stages_tables_and_the_report(finished: "subprocess.CompletedProcess[str]") -> None:
    out = finished.stdout
    for stage in ("questions", "sampling", "examples", "training", "evaluation"):
        assert re.search(rf"^{stage} .*(/s|questions)", out, flags=re.MULTILINE), stage
    for word in (
        "kept as examples",
        "set aside: prompt_too_long",
        "entropy (nats)",
        "weight: uniform",
        "EAST (entropy, a = 1.5) minus uniform",
    ):
        assert word in out, word
    assert re.search(r"report: .*report.html", out)
    assert finished.stderr == ""
    assert not re.search(r"WARNING|INFO|Traceback|raylet", out)


def test_a_run_directory_stands_for_its_configuration(run_dir: Path, tmp_path: Path) -> None:
    """Audit and report of a finished run, named by its directory; two runs on one page."""
    audited = east_ray("audit", str(run_dir), "labels.min_share=0.4")
    assert audited.returncode == 0, audited.stderr
    suspects = [json.loads(line) for line in (run_dir / "round_0" / "audit" / "audit.jsonl").read_text().splitlines()]
    said = f"of {NUM_QUESTIONS} reference answers are contradicted by at least 40 % of the responses"
    assert suspects and f"{len(suspects)} {said}" in audited.stdout
    planted = {row["question_id"]: row for row in read(run_dir / "round_0" / "questions", QUESTIONS)}
    assert {row["question_id"] for row in suspects} <= set(planted)
    assert "<script" not in (run_dir / "round_0" / "audit" / "audit.html").read_text()

    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    reported = east_ray("report", str(run_dir), str(other), "--output", str(tmp_path / "both.html"))
    assert reported.returncode == 0, reported.stderr
    page = (tmp_path / "both.html").read_text()
    assert str(run_dir) in page and str(other) in page
    nothing = east_ray("report", str(tmp_path))
    assert nothing.returncode == 1 and "neither the YAML file of a run nor a run directory" in nothing.stderr


def test_every_question_is_in_exactly_one_place(run_dir: Path) -> None:
    round_ = run_dir / "round_0"
    asked = read(round_ / "questions", QUESTIONS)
    aside = read(round_ / "set_aside", SET_ASIDE)
    assert Counter(row["reason"] for row in aside) == {"prompt_too_long": 1, "unparsable_reference": 1}
    for stages in (round_, round_ / "variants" / "uniform"):
        examples, discarded = read(stages / "examples", EXAMPLES), read(stages / "discarded", DISCARDED)
        names = [row["question_id"] for row in [*examples, *discarded, *aside]]
        assert len(names) == len(set(names)) == NUM_QUESTIONS + 2
        assert {row["question_id"] for row in [*examples, *discarded]} == {row["question_id"] for row in asked}


def recomputed(samples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Clusters, rates, entropies and reasons from samples/ alone, by other means: integers in the last box."""
    result = {}
    for row in samples:
        found = [re.findall(r"\\boxed\{([^{}]*)\}", response["text"]) for response in row["responses"]]
        answers = [Fraction(boxes[-1]) if boxes and re.fullmatch(r"-?\d+", boxes[-1]) else None for boxes in found]
        counts = Counter(answers)
        shares = [count / len(answers) for count in counts.values()]
        right = Fraction(row["reference_answer"])
        wrong = [count for answer, count in counts.items() if answer not in (None, right)]
        result[row["question_id"]] = {
            "entropy": -sum(p * math.log(p) for p in shares) if len(shares) > 1 else 0.0,
            "pass_rate": counts[right] / len(answers),
            "rejected_rate": max(wrong, default=0) / len(answers),
            "sizes": sorted(counts.values(), reverse=True),
            "kept": counts[right] > 0,
        }
    return result


def test_clusters_entropies_and_weights_follow_from_the_samples_alone(run_dir: Path) -> None:
    round_ = run_dir / "round_0"
    samples = read(round_ / "samples", SAMPLES)
    assert len(samples) == NUM_QUESTIONS
    assert all(len(row["responses"]) == NUM_RESPONSES for row in samples)
    expected = recomputed(samples)
    for stages, exponent in ((round_, 1.5), (round_ / "variants" / "uniform", 0)):
        examples, discarded = read(stages / "examples", EXAMPLES), read(stages / "discarded", DISCARDED)
        assert {row["question_id"] for row in examples} == {name for name, row in expected.items() if row["kept"]}
        assert {row["reason"] for row in discarded} == {"all_wrong"}
        for row in [*examples, *discarded]:
            other = expected[row["question_id"]]
            assert row["entropy"] == pytest.approx(other["entropy"], abs=1e-12)
            assert (row["pass_rate"], row["rejected_rate"]) == (other["pass_rate"], other["rejected_rate"])
            assert [cluster["num_responses"] for cluster in row["clusters"]] == other["sizes"]
        powers = {row["question_id"]: expected[row["question_id"]]["entropy"] ** exponent for row in examples}
        mean = sum(powers.values()) / len(powers)
        for row in examples:
            assert row["weight"] == pytest.approx(powers[row["question_id"]] / mean, abs=1e-9)
        assert sum(row["weight"] for row in examples) / len(examples) == pytest.approx(1, abs=1e-9)


def test_chosen_responses_are_correct_ones_of_the_same_question(run_dir: Path) -> None:
    texts = {row["question_id"]: row for row in read(run_dir / "round_0" / "samples", SAMPLES)}
    for row in read(run_dir / "round_0" / "examples", EXAMPLES):
        responses = [response["text"] for response in texts[row["question_id"]]["responses"]]
        assert row["chosen"] in responses and f"\\boxed{{{row['reference_answer']}}}" in row["chosen"]
        assert row["rejected"] is None or row["rejected"] in responses


def test_training_took_the_weights(run_dir: Path) -> None:
    logs = [
        [json.loads(line) for line in (stages / "training.jsonl").read_text().splitlines()]
        for stages in (run_dir / "round_0", run_dir / "round_0" / "variants" / "uniform")
    ]
    for log in logs:
        assert [step["step"] for step in log] == list(range(1, log[0]["num_steps"] + 1))
    assert all(step["loss"] == pytest.approx(step["unweighted_loss"], rel=1e-6) for step in logs[1])
    assert any(abs(step["loss"] / step["unweighted_loss"] - 1) > 0.01 for step in logs[0])


def test_the_trained_model_loads_in_transformers_and_vllm_and_its_evaluation_reproduces(
    run_dir: Path, tmp_path: Path, local_ray: None
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model_path = run_dir / "round_0" / "model"
    assert (model_path / "model.safetensors").exists() and (model_path / "chat_template.jinja").exists()
    answers = read(run_dir / "round_0" / "evaluation" / "answers", GREEDY_ANSWERS)
    stored = {row["question_id"]: row for row in answers if row["model"] == "trained"}
    assert len(stored) == NUM_TEST
    metrics = json.loads((run_dir / "round_0" / "evaluation" / "metrics.json").read_text())
    accuracy = sum(row["is_correct"] for row in stored.values()) / NUM_TEST
    assert metrics["accuracy"]["trained"]["accuracy"] == pytest.approx(accuracy)

    # A fresh vLLM engine, which has loaded this model from disk and no other before it, answers alike.
    settings = load(ROOT / "jobs" / "quickstart.yaml")
    responses = Folder(*locate(str(run_dir / "round_0" / "evaluation" / "responses"))).read(SAMPLES)
    asked = responses.filter(pc.equal(responses["model"], "trained")).select(QUESTIONS.names)
    folder = Folder(*locate(str(tmp_path / "again")))
    pool = pool_settings(settings, Decoding(responses_per_question=1, temperature=0.0, max_tokens=64))
    models = {"trained": str(model_path)}
    asked = requests(asked, models, pool)
    parts = list(sample(asked, models, folder, folder / "aside", pool))
    assert sum(part["num_questions"] for part in parts) == NUM_TEST
    assert sum(part["num_questions"] for part in tidy(folder, asked["key"])) == NUM_TEST
    again = {row["question_id"]: row["responses"][0]["text"] for row in folder.read(SAMPLES).to_pylist()}
    same = sum(again[name] == row["response"] for name, row in stored.items())
    assert same >= 0.97 * NUM_TEST  # the last bit of a sum depends on the batch; a tie may fall the other way

    tokenizer, model = AutoTokenizer.from_pretrained(model_path), AutoModelForCausalLM.from_pretrained(model_path)
    prompts = {row["question_id"]: row["prompt"] for row in folder.read(SAMPLES).to_pylist()}
    agree = 0
    for name in list(stored)[:20]:
        ids = tokenizer(prompts[name], add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(**ids, max_new_tokens=64, do_sample=False)
        text = tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        agree += text == again[name]
    assert agree >= 18


def test_the_report_is_one_file_that_asks_no_network(run_dir: Path) -> None:
    html = (run_dir / "report.html").read_text()
    for section in ("Accuracy on held-out questions", "Entropy and weights", "<svg", "wrong on purpose", "config.yaml"):
        assert section in html, section
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
    assert html.count("<script") == 1  # the table's own, by its hash


def test_a_second_run_says_what_exists_and_does_nothing_again(
    arguments: list[str], run_dir: Path, finished: "subprocess.CompletedProcess[str]"
) -> None:
    def stamps() -> dict[str, int]:
        kept = [path for path in run_dir.rglob("*") if path.is_file() and path.name != "report.html"]
        return {str(path): path.stat().st_mtime_ns for path in kept}

    before = stamps()
    result = east_ray("run", *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("done before, in") == 9
    assert stamps() == before
    assert result.stdout.splitlines()[-20:-2] == finished.stdout.splitlines()[-20:-2]


def test_another_configuration_is_refused_by_its_keys(arguments: list[str], run_dir: Path) -> None:
    result = east_ray("run", *arguments, "weighting.exponent=3.0", "training.epochs=2")
    assert result.returncode == 1
    assert "weighting.exponent: 1.5 there, 3.0 now; training.epochs: 1 there, 2 now" in result.stderr


def test_only_unfinished_questions_are_sampled_again(arguments: list[str], run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    # As a driver that was killed in the middle leaves it: finished tasks, one in flight, half a part, no record.
    (copy / "round_0" / "stages" / "sampling.json").unlink()
    folder = copy / "round_0" / "samples"
    (part,) = folder.glob("*.parquet")
    table = pq.read_table(part)
    part.rename(part.with_name(f".{part.name}.half"))
    mark = [[{**response, "text": response["text"] + " kept"} for response in row] for row in
            table["responses"].to_pylist()]  # fmt: skip
    marked = table.set_column(table.schema.get_field_index("responses"), SAMPLES.field("responses"),
                              pa.array(mark, SAMPLES.field("responses").type))  # fmt: skip
    (folder / "pending" / "task").mkdir(parents=True)
    pq.write_table(marked.slice(0, 20), folder / "part-1.parquet")
    pq.write_table(marked.slice(18, 10), folder / "pending" / "task" / "part-2.parquet")  # two rows are there already
    other_model = pa.array(["f" * 32] * 5, pa.string())
    pq.write_table(table.slice(40, 5).set_column(table.schema.get_field_index("key"), SAMPLES.field("key"),
                                                 other_model), folder / "part-3.parquet")  # fmt: skip
    result = east_ray("sample", arguments[0], f"run_dir={copy}", *arguments[2:])
    assert result.returncode == 0, result.stderr
    assert re.search(
        rf"sampling +{NUM_QUESTIONS}/{NUM_QUESTIONS} questions .*7 rows of another model .* dropped", result.stdout
    )
    record = json.loads((copy / "round_0" / "stages" / "sampling.json").read_text())
    assert record["counts"]["num_questions"] == NUM_QUESTIONS
    assert record["counts"]["num_responses"] == NUM_QUESTIONS * NUM_RESPONSES
    assert [path.suffix for path in folder.iterdir() if not path.name.startswith(".")] == [".parquet"]
    rows = read(copy / "round_0" / "samples", SAMPLES)
    assert len({row["question_id"] for row in rows}) == len(rows) == NUM_QUESTIONS
    kept = {row["question_id"] for row in rows if row["responses"][0]["text"].endswith(" kept")}
    assert kept == set(table.slice(0, 28)["question_id"].to_pylist())
    # Seeds go by question, so a question that is asked again mostly gets the same responses.
    first = {row["question_id"]: [r["text"] for r in row["responses"]] for row in table.to_pylist()}
    again = {row["question_id"]: [r["text"] for r in row["responses"]] for row in rows}
    same = sum(a == b for name in first if name not in kept for a, b in zip(first[name], again[name], strict=True))
    assert same >= 0.9 * (NUM_QUESTIONS - 28) * NUM_RESPONSES


def test_a_run_that_keeps_no_question_says_so_and_keeps_its_samples(tmp_path: Path, local_ray: None) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "How many pens has Tom?", "reference_answer": "999999"}\n')
    (tmp_path / "table.jsonl").write_text('{"question": "pens", "responses": ["8", "\\\\boxed{9}"]}\n')
    arguments = [
        "run", str(ROOT / "jobs" / "quickstart.yaml"), f"run_dir={tmp_path / 'run'}",
        f"questions.path={tmp_path / 'q.jsonl'}", "sampling.responses_per_question=4", "sampling.backend=scripted",
        f"sampling.backend_args={{table: {tmp_path / 'table.jsonl'}}}",
    ]  # fmt: skip
    with pytest.raises(InputError, match="no question was kept, so there is nothing to train on: of 1 questions 1 all"):
        cli.app(arguments, standalone_mode=False)
    (sample,) = read(tmp_path / "run" / "round_0" / "samples", SAMPLES)
    assert len(sample["responses"]) == 4
    assert read(tmp_path / "run" / "round_0" / "discarded", DISCARDED)[0]["reason"] == "all_wrong"


@pytest.mark.drill
def test_models_are_measured_without_anything_to_learn_from(quickstart: Path, tmp_path: Path) -> None:
    """Two models, one of another architecture, on the same questions."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(quickstart / "model")
    torch.manual_seed(0)
    other = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                    num_attention_heads=2, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id)
    )  # fmt: skip
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    job = {
        "run_dir": str(tmp_path / "run"), "model": str(quickstart / "model"), "cluster": {"num_cpus": 2},
        "engines": {"engine_args": {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 256,
                                    "max_model_len": 256}, "env": {"VLLM_CPU_KVCACHE_SPACE": "1"}},
        "evaluation": {"questions": {"path": str(quickstart / "test.jsonl"), "max_questions": 30}, "max_tokens": 64,
                       "models": {"other": str(tmp_path / "other")}},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    result = east_ray("evaluate", str(tmp_path / "job.yaml"))
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "round_0" / "evaluation" / "metrics.json").read_text())
    assert metrics["accuracy"]["base"]["accuracy"] > 0.5 > metrics["accuracy"]["other"]["accuracy"]
    assert re.search(r"base .* [6-9][0-9]\.[0-9] ", result.stdout) and re.search(r"other .* 0\.0 ", result.stdout)
    other = east_ray("evaluate", str(tmp_path / "job.yaml"), "evaluation.max_tokens=32")
    assert other.returncode == 1 and "evaluation.max_tokens: 64 there, 32 now" in other.stderr
    (difference,) = metrics["differences"]
    assert difference["second"] == "base" and difference["high"] < 0 and difference["p_value"] < 0.001
    refused = east_ray("run", str(tmp_path / "job.yaml"))
    assert refused.returncode == 1 and "questions: missing" in refused.stderr
