"""The quick start's questions and model: what the generator promises, and what the shipped files hold."""

from __future__ import annotations

import collections
import importlib.util
import itertools
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

QUICKSTART = Path(__file__).parent.parent / "jobs" / "quickstart"
MODEL = QUICKSTART / "model"


def load_script(name: str) -> ModuleType:
    """A script of jobs/quickstart as a module; the folder is not a package."""
    spec = importlib.util.spec_from_file_location(name, QUICKSTART / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


wp = load_script("word_problems")
ALL_STEPS = wp.Recipe(steps={1: 1, 2: 1, 3: 2, 4: 4, 5: 8})


def draw(count: int, seed: int = 0, recipe: Any = ALL_STEPS) -> list[Any]:
    return list(itertools.islice(wp.generate(recipe, seed), count))


def read_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (QUICKSTART / name).read_text(encoding="utf-8").splitlines()]


def final_answer(row: dict[str, Any]) -> int:
    return int(row["answer"].rpartition("\n#### ")[2])


# --- the generator ---------------------------------------------------------------------------------------------------


def test_the_seed_decides_everything() -> None:
    assert draw(200, seed=5) == draw(200, seed=5)
    assert draw(200, seed=5) != draw(200, seed=6)


def test_questions_differ_and_avoid_the_excluded() -> None:
    first = {problem.question for problem in draw(300)}
    assert len(first) == 300
    again = itertools.islice(wp.generate(ALL_STEPS, 0, exclude=first), 300)
    assert first.isdisjoint(problem.question for problem in again)


def test_every_number_is_a_small_positive_integer() -> None:
    for problem in draw(1000):
        assert 1 <= len(problem.steps) <= 5
        results = [result for _, result in problem.lines()]
        assert all(1 <= result <= wp.MAX_NUMBER for result in results), problem
        assert problem.answer == results[-1]


def test_right_divisions_come_out_even() -> None:
    divisions = [
        tuple(map(int, expression.split("/")))
        for problem in draw(1000)
        for expression, _ in problem.lines()
        if "/" in expression
    ]
    assert divisions
    assert all(dividend % divisor == 0 for dividend, divisor in divisions)


def test_solution_lines_are_true_and_follow_from_one_another() -> None:
    for problem in draw(500):
        lines = wp.equations(problem.solution())
        assert len(lines) == len(problem.steps)
        for (expression, result), before in zip(lines, [problem.start, *(r for _, r in lines)], strict=False):
            assert wp.evaluate(expression) == result
            assert re.match(r"\d+", expression)[0] == str(before)  # type: ignore[index]
        assert problem.solution().endswith(f"The answer is \\boxed{{{problem.answer}}}.")


def test_every_operand_stands_in_the_question() -> None:
    for problem in draw(500):
        numbers = collections.Counter(map(int, re.findall(r"\d+", problem.question)))
        unsaid = collections.Counter({2: sum(step.kind in ("half", "double") for step in problem.steps)})  # in words
        operands = [operand for step in problem.steps for operand in step.operands]
        assert collections.Counter([problem.start, *operands]) == numbers + unsaid


@pytest.mark.parametrize("kind", sorted(wp.CLAUSE_KINDS))
def test_a_misconception_changes_the_answer_of_its_kind_only(kind: str) -> None:
    other = next(name for name in wp.CLAUSE_KINDS if name != kind)
    # One step: sells_each alone is refused as a recipe because a question can hold it once, so draw it among two.
    recipe = wp.Recipe(steps={1: 1}, kinds={kind: 1.0, other: 1.0})
    problems = [problem for problem in draw(200, recipe=recipe) if problem.kinds == {kind}]
    assert problems
    for problem in problems:
        assert problem.lines([kind])[-1][1] != problem.answer
        assert problem.lines([other]) == problem.lines()


def test_later_steps_go_on_from_a_misconceived_number() -> None:
    problem = wp.WordProblem("", 6, (wp.Step("times_as_many", (3,)), wp.Step("shares_equally", (2,))))
    assert problem.lines() == [("6*3", 18), ("18/2", 9)]
    assert problem.lines(["times_as_many"]) == [("6+3", 9), ("9/2", 4)]  # 9/2 drops its remainder
    assert problem.solution(["shares_equally"]) == "6*3=18\n18-2=16\nThe answer is \\boxed{16}."


def test_a_number_below_zero_is_an_error() -> None:
    problem = wp.WordProblem("", 3, (wp.Step("uses_every_day", (2, 4)),))
    with pytest.raises(ValueError, match="below zero: 3-2\\*4=-5"):
        problem.lines()


@pytest.mark.parametrize(
    ("expression", "value"),
    [("7", 7), ("5+4*3", 17), ("20-2*4", 12), ("9+9+4", 22), ("17/5", 3), ("17%5", 2), ("2-5", -3), ("2*3*4", 24)],
)
def test_evaluate(expression: str, value: int) -> None:
    assert wp.evaluate(expression) == value


@pytest.mark.parametrize("expression", ["", "5+", "a+1", "5**2", "-3+4", "1.5+2", "__import__('os')"])
def test_evaluate_refuses_what_is_no_expression(expression: str) -> None:
    with pytest.raises(ValueError, match="not an expression"):
        wp.evaluate(expression)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": {}}, "steps: a question needs at least one step"),
        ({"steps": {0: 1}}, "steps: a question needs at least one step"),
        ({"steps": {1: 1}, "kinds": {"cubes": 1.0}}, r"kinds: \['cubes'\] unknown"),
        ({"steps": {1: 1}, "kinds": {"sells_each": 1.0}}, "kinds: needs another kind besides sells_each"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wp.Recipe(**settings)


# --- wrong references ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stubborn", "diverse"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_wrong_references_is_exact_and_each_is_marked(how: str, share: float) -> None:
    problems = draw(200)
    rows = wp.rows(problems, seed=3, wrong_share=share, wrong_references=how)
    is_wrong = [final_answer(row) != problem.answer for row, problem in zip(rows, problems, strict=True)]
    assert sum(is_wrong) == round(200 * share)
    assert is_wrong == [row.get("reference_is_wrong", False) for row in rows]


def test_a_stubborn_reference_is_the_answer_of_one_misconception() -> None:
    problems = [problem for problem in draw(300) if "times_as_many" in problem.kinds]
    for problem in problems:
        misconceived = problem.lines(["times_as_many"])[-1][1]
        if misconceived == problem.answer:  # a later step hid it
            continue
        row = wp.wrong_reference_row(problem, "stubborn", random.Random(0), misconceptions=["times_as_many"])
        assert final_answer(row) == misconceived


def test_diverse_references_differ_from_draw_to_draw() -> None:
    problem = draw(1)[0]
    answers = {final_answer(wp.wrong_reference_row(problem, "diverse", random.Random(seed))) for seed in range(30)}
    assert len(answers) > 2
    assert problem.answer not in answers


@pytest.mark.parametrize("how", ["stubborn", "diverse"])
def test_nested_wrong_references_of_a_smaller_share_are_among_those_of_a_larger(how: str) -> None:
    problems = draw(200)

    def wrong_at(share: float) -> dict[str, str]:
        rows = wp.rows(problems, seed=3, wrong_share=share, wrong_references=how, nested=True)
        return {row["question"]: row["answer"] for row in rows if "reference_is_wrong" in row}

    shares = (0.0, 0.05, 0.1, 0.4, 1.0)
    found = [wrong_at(share) for share in shares]
    assert [len(wrong) for wrong in found] == [round(200 * share) for share in shares]
    assert all(smaller.items() <= larger.items() for smaller, larger in itertools.pairwise(found))


def test_both_kinds_of_nested_wrong_references_are_of_the_same_questions() -> None:
    problems = draw(100)
    stubborn, diverse = (
        wp.rows(problems, seed=3, wrong_share=0.2, wrong_references=how, nested=True) for how in ("stubborn", "diverse")
    )
    assert ["reference_is_wrong" in row for row in stubborn] == ["reference_is_wrong" in row for row in diverse]


@pytest.mark.parametrize(("easy_share", "num_easy"), [(0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40)])
def test_the_share_of_easy_questions_is_exact(easy_share: float, num_easy: int) -> None:
    problems = wp.easy_and_hard(40, seed=5, easy_share=easy_share)
    easy = {problem.question for problem in itertools.islice(wp.generate(wp.EASY, 5), num_easy)}
    assert len({problem.question for problem in problems}) == 40
    assert len(easy & {problem.question for problem in problems}) == num_easy


def test_shares_outside_of_0_to_1_are_refused() -> None:
    with pytest.raises(ValueError, match="easy_share must be in"):
        wp.easy_and_hard(10, 0, easy_share=1.5)
    with pytest.raises(ValueError, match="wrong_share must be in"):
        wp.rows([], 0, wrong_share=-0.1)


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "is_right"),
    [
        ("5*3=15\n15-2*4=7\nThe answer is \\boxed{7}.", True),
        ("3*5=15\n15-4*2=7", True),
        ("First,\n5*3=15\nand then\n15-2*4=7", True),
        ("5*3=15\n15-2*4=7\nThe answer is \\boxed{8}.", True),  # the answer is judged elsewhere
        ("5*3=16\n16-2*4=8", False),  # not true
        ("5*3=15\n15-2*4=8", False),
        ("5+2=7\n7*1=7", False),  # right answer, other steps
        ("5*3=15\n15-8=7", False),  # other numbers than the question's
        ("2*4-15=7\n5*3=15", False),
        ("5*3=15", False),  # a step is missing
        ("5*3=15\n15-2*4=7\n7*1=7", False),
        ("The answer is \\boxed{7}.", False),
    ],
)
def test_steps_are_those_of_the_solution(response: str, is_right: bool) -> None:
    assert wp.steps_are_right("5*3=15\n15-2*4=7\nThe answer is \\boxed{7}.\n#### 7", response) is is_right


def test_order_matters_where_it_matters() -> None:
    assert not wp.steps_are_right("8/2=4", "2/8=4")
    assert not wp.steps_are_right("8-2=6", "2-8=6")
    assert not wp.steps_are_right("17%5=2", "5%17=2")
    assert wp.steps_are_right("5+4*3=17", "3*4+5=17")


def test_solutions_have_right_steps_and_misconceptions_have_not() -> None:
    for problem in draw(300):
        assert wp.steps_are_right(wp.reference_row(problem)["answer"], problem.solution())
        assert not wp.steps_are_right(problem.solution(), problem.solution(sorted(problem.kinds)[:1]))


def test_the_command_line_writes_what_its_options_say(tmp_path: Path) -> None:
    options = ["--count=40", "--seed=7", "--steps=2:3,3:1", "--kinds=half,double,gets_more", "--wrong-share=0.25"]

    def run(name: str, *more: str) -> list[dict[str, Any]]:
        command = [sys.executable, str(QUICKSTART / "word_problems.py"), "--out", str(tmp_path / name), *options, *more]
        subprocess.run(command, check=True)
        return [json.loads(line) for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]

    first = run("first.jsonl")
    assert len(first) == 40
    assert sum(row.get("reference_is_wrong", False) for row in first) == 10
    assert {len(wp.equations(row["answer"])) for row in first} == {2, 3}
    second = run("second.jsonl", "--exclude", str(tmp_path / "first.jsonl"))
    assert {row["question"] for row in first}.isdisjoint(row["question"] for row in second)


def test_the_command_line_draws_the_quick_starts_own_questions(tmp_path: Path) -> None:
    command = [sys.executable, str(QUICKSTART / "word_problems.py"), "--out", str(tmp_path / "pool.jsonl"),
               "--count=40", "--easy-share=0.75", "--seed=5"]  # fmt: skip
    subprocess.run(command, check=True)
    rows = [json.loads(line) for line in (tmp_path / "pool.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["question"] for row in rows] == [p.question for p in wp.easy_and_hard(40, 5, easy_share=0.75)]
    refused = subprocess.run([*command, "--steps=2"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "so --steps and --kinds cannot be given with it" in refused.stderr


# --- the shipped files -----------------------------------------------------------------------------------------------


def test_the_shipped_files_are_what_the_script_writes(tmp_path: Path) -> None:
    wp.write_quickstart(tmp_path)
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / name).read_bytes() == (QUICKSTART / name).read_bytes()
        assert (QUICKSTART / name).stat().st_size <= 1_000_000


def test_train_and_test_share_no_question() -> None:
    train, test = ({row["question"] for row in read_rows(name)} for name in ("train.jsonl", "test.jsonl"))
    assert (len(train), len(test)) == (wp.NUM_TRAIN, wp.NUM_TEST)
    assert train.isdisjoint(test)


def test_the_test_file_is_clean() -> None:
    for row in read_rows("test.jsonl"):
        assert set(row) == {"question", "answer"}
        lines = wp.equations(row["answer"])
        assert all(wp.evaluate(expression) == result for expression, result in lines)
        assert lines[-1][1] == final_answer(row)
        assert f"\\boxed{{{final_answer(row)}}}" in row["answer"]


def test_a_tenth_of_the_training_references_is_wrong_and_marked() -> None:
    train, _ = wp.quickstart_problems()
    rows = read_rows("train.jsonl")
    is_wrong = [final_answer(row) != problem.answer for row, problem in zip(rows, train, strict=True)]
    assert is_wrong == [row.get("reference_is_wrong", False) for row in rows]
    assert sum(is_wrong) / len(rows) == pytest.approx(wp.WRONG_SHARE)
    assert all(f"\\boxed{{{final_answer(row)}}}" in row["answer"] for row in rows)


# --- the shipped model -----------------------------------------------------------------------------------------------


def test_the_model_is_small_and_names_its_end_of_turn() -> None:
    import transformers

    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 5_000_000
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    assert 1_000_000 <= model.num_parameters() <= 1_500_000
    assert model.config.vocab_size == len(tokenizer)
    for settings in (model.config, model.generation_config):
        assert settings.eos_token_id == tokenizer.eos_token_id
        assert settings.bos_token_id == tokenizer.bos_token_id
        assert settings.pad_token_id == tokenizer.pad_token_id


def test_the_chat_template_writes_begin_once_and_end_after_the_response() -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    user, assistant = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ana."}
    prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)
    system = tokenizer.apply_chat_template([{"role": "system", "content": "Be short."}, user], tokenize=False)
    assert prompt == "<|begin|><|user|>Who?<|assistant|>"
    assert whole == prompt + "Ana.<|end|>"
    assert system == "<|begin|><|system|>Be short.<|user|>Who?"
    for add_special_tokens in (False, True):  # engines do either
        ids = tokenizer(prompt, add_special_tokens=add_special_tokens)["input_ids"]
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id


def test_digits_are_tokens_and_text_comes_back_unchanged() -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    text = "12*7=84\nThe answer is \\boxed{84}."
    tokens = tokenizer.tokenize(text)
    assert [token for token in tokens if any(character.isdigit() for character in token)] == list("1278484")
    for row in [*read_rows("test.jsonl")[:50], {"question": text, "answer": "(any) ASCII: ~!"}]:
        for field in ("question", "answer"):
            ids = tokenizer(row[field], add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids) == row[field]
            assert tokenizer.unk_token_id not in ids


def test_the_model_answers_easy_questions() -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    problems = list(itertools.islice(wp.generate(wp.EASY, seed=99), 20))
    num_correct = 0
    for problem in problems:
        chat = [{"role": "user", "content": problem.question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**prompt, do_sample=False, max_new_tokens=64)
        response = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        num_correct += response == problem.solution()
    assert num_correct >= 17
