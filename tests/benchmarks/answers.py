r"""Accuracy and speed of east_ray.answers compared with Math-Verify: ``python tests/benchmarks/answers.py``.

The cases are the labelled ones of ``../shared/data/equivalence`` and the MATH answers of ``../shared/data/math`` if
present, else generated ones. Speed is that of clustering 128 answers per question in one process, without extraction:
ours by keys; Math-Verify by comparing each distinct answer, parsed once, with one member of each cluster so far. The
last line is a JSON object.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from east_ray import answers
from east_ray.answers import symbolic

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RESPONSES_PER_QUESTION = 128
Pair = dict[str, Any]


# -------------------------------------------------------------------------------------------------------------- cases


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def labelled_pairs(rng: random.Random) -> list[Pair]:
    path = DATA / "equivalence" / "pairs.jsonl"
    return rows(path) if path.exists() else list(generated_pairs(rng))


def generated_pairs(rng: random.Random) -> Iterator[Pair]:
    """Pairs with labels that follow from their construction."""
    for _ in range(60):
        a, b, k = rng.randint(2, 99), rng.randint(2, 99), rng.randint(2, 9)
        root = rng.choice([2, 3, 5, 7])
        equal = [
            (f"{a}", f"{a}.0"),
            (f"{1000 * a + b}", f"{a},{b:03}"),
            (rf"\frac{{{a}}}{{{b}}}", rf"\dfrac{{{k * a}}}{{{k * b}}}"),
            (rf"{a}\sqrt{{{root}}}", rf"\sqrt{{{a * a * root}}}"),
            (f"x^2+{a}x+{b}", f"{b} + x^2 + {a} x"),
            (f"({a}, {b})", rf"\left({a},\,{b}\right)"),
            (rf"{a}\pi", rf"\pi \cdot {a}"),
        ]
        unequal = [
            (f"{a}", f"{a + 1}"),
            (rf"\frac{{{a}}}{{{b}}}", rf"\frac{{{a + 1}}}{{{b}}}"),
            (rf"{a}\sqrt{{{root}}}", rf"{a}\sqrt{{{root + 1}}}"),
            (f"x^2+{a}x+{b}", f"x^2-{a}x+{b}"),
            (f"({a}, {a + b})", f"({a + b}, {a})"),
            (f"[{a}, {a + b}]", f"({a}, {a + b})"),
            (f"{a}", f"{100 * a}"),
        ]
        for label, pairs in ((True, equal), (False, unequal)):
            for gold, answer in pairs:
                yield {"gold": gold, "answer": answer, "equal": label, "kind": "strict"}


def labelled_extractions(rng: random.Random) -> list[dict[str, Any]]:
    path = DATA / "equivalence" / "extraction.jsonl"
    if path.exists():
        return rows(path)
    cases = []
    for _ in range(40):
        a, b = rng.randint(1, 999), rng.randint(1, 999)
        for response, expected in (
            (f"We have {a} + {b} = {a + b}.\nSo the answer is $\\boxed{{{a + b}}}$.", f"{a + b}"),
            (f"First {a}, then {b}.\n#### {b}", f"{b}"),
            (f"Adding {a} gives {b}. The answer is {b}.", f"{b}"),
            (f"It is \\boxed{{\\frac{{{a}}}{{{b}", None),
        ):
            cases.append({"response": response, "expected_answer": expected, "explicit": True})
    return cases


def reported_cases() -> list[dict[str, Any]]:
    """Cases after public bug reports of graders, without those that are a matter of convention."""
    path = DATA / "equivalence" / "reports.jsonl"
    return [row for row in rows(path) if not row.get("policy")] if path.exists() else []


def gsm8k_like(rng: random.Random) -> list[str]:
    """128 answers of which about half are right, the rest whole numbers near it, some written otherwise."""
    right = rng.randint(2, 2000)
    wrong = [right + rng.choice([-1, 1]) * rng.randint(1, 1 + right) for _ in range(rng.randint(3, 20))]
    values = rng.choices([right, *wrong], [len(wrong), *[1] * len(wrong)], k=RESPONSES_PER_QUESTION)
    forms = ["{}", "{}", "{}", "{}", "{}.00", "\\${}", "{:,}", "{} \\text{{ dollars}}"]
    return [rng.choice(forms).format(value) for value in values]


def math_like(rng: random.Random, distinct: Sequence[str]) -> list[str]:
    """128 answers, 30 distinct strings, one of them commoner than the others."""
    filler = rng.choices(distinct, [10] + [1] * 29, k=RESPONSES_PER_QUESTION - 30)
    return rng.sample([*distinct, *filler], RESPONSES_PER_QUESTION)


def math_pool(rng: random.Random) -> list[str]:
    """Final answers of MATH. Each serves one question only: a cache of earlier questions' answers does not help."""
    path = DATA / "math" / "train.jsonl"
    if path.exists():
        pool = {str(row["answer"]) for row in rows(path) if row["answer"]}
    else:
        pool = {pair[side] for pair in generated_pairs(rng) for side in ("gold", "answer")}
    return rng.sample(sorted(pool), len(pool))


# ------------------------------------------------------------------------------------------------------- Math-Verify


def math_verify_parse(text: str) -> Any:
    from math_verify import parse

    return parse(text)


def math_verify_answer(answer: str) -> Any:
    """Its reading of a bare answer. Of the wrappings $...$, \\boxed{...} and none, none does better on the pairs."""
    return math_verify_parse(f"${answer}$")


def math_verify_equal(one: Any, other: Any) -> bool:
    from math_verify import verify

    return bool(verify(one, other))


def math_verify_cluster(found: Sequence[str]) -> list[int]:
    parsed = {answer: math_verify_answer(answer) for answer in dict.fromkeys(found)}
    representatives: list[str] = []
    numbers: dict[str, int] = {}
    for answer, value in parsed.items():
        for number, representative in enumerate(representatives):
            if math_verify_equal(parsed[representative], value):
                numbers[answer] = number
                break
        else:
            numbers[answer] = len(representatives)
            representatives.append(answer)
    return [numbers[answer] for answer in found]


# ----------------------------------------------------------------------------------------------------------- measures


def shown(items: Sequence[Any], label: str) -> Iterable[Any]:
    console = Console(stderr=True)
    return track(items, label, console=console, transient=True) if console.is_terminal else items


def pair_scores(pairs: Sequence[Pair], equal: Callable[[str, str], bool]) -> dict[str, float]:
    judged = [(pair, equal(pair["gold"], pair["answer"]) == pair["equal"]) for pair in shown(pairs, "pairs")]
    strict = [right for pair, right in judged if pair["kind"] == "strict"]
    return {
        "pairs_accuracy": sum(right for _, right in judged) / len(judged),
        "strict_accuracy": sum(strict) / len(strict),
        "false_accepts": sum(not right for pair, right in judged if not pair["equal"]),
    }


def extraction_accuracy(cases: Sequence[dict[str, Any]], right: Callable[[dict[str, Any]], bool]) -> float:
    return sum(right(case) for case in shown(cases, "extractions")) / len(cases)


def report_scores(
    cases: Sequence[dict[str, Any]], equal: Callable[[str, str], bool], finds: Callable[[dict[str, Any]], bool]
) -> dict[str, float]:
    """Of the cases after bug reports, pairs and responses together."""
    judged = [
        (case, equal(case["gold"], case["answer"]) == case["equal"] if case["kind"] == "pair" else finds(case))
        for case in shown(cases, "reports")
    ]
    return {
        "reports_accuracy": sum(right for _, right in judged) / max(1, len(judged)),
        "reports_false_accepts": sum(not right for case, right in judged if case.get("equal") is False),
    }


def as_extraction(case: dict[str, Any]) -> dict[str, Any]:
    """A response of the reports as one of the labelled extractions."""
    return case | {"expected_answer": case["expected"], "explicit": not case.get("last_number")}


def our_extraction_is_right(case: dict[str, Any]) -> bool:
    # explicit: false marks those whose answer only a last-number fallback finds, an option here
    found = answers.extract(case["response"], last_number=case["expected_answer"] is not None and not case["explicit"])
    if case["expected_answer"] is None or found.answer is None:
        return found.answer is case["expected_answer"]
    return answers.equivalent(case["expected_answer"], found.answer)


def math_verify_extraction_is_right(case: dict[str, Any]) -> bool:
    found = math_verify_parse(case["response"])
    if case["expected_answer"] is None or not found:
        return not found and case["expected_answer"] is None
    return math_verify_equal(math_verify_answer(case["expected_answer"]), found)


def answers_per_s(questions: Sequence[list[str]], cluster: Callable[[list[str]], list[int]], label: str) -> float:
    begin = time.perf_counter()
    for question in shown(questions, label):
        cluster(question)
    return RESPONSES_PER_QUESTION * len(questions) / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1000, help="questions to cluster of each kind (ours)")
    parser.add_argument("--questions-math-verify", type=int, default=4, help="the same of Math-Verify, which is slow")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    rng = random.Random(options.seed)
    pairs, extractions, pool = labelled_pairs(rng), labelled_extractions(rng), math_pool(rng)
    reports = reported_cases()
    gsm8k = [gsm8k_like(rng) for _ in range(options.questions)]
    math = [math_like(rng, pool[30 * i : 30 * i + 30]) for i in range(min(options.questions, len(pool) // 30))]
    few = options.questions_math_verify

    ours: dict[str, float] = pair_scores(pairs, answers.equivalent)
    ours["extraction_accuracy"] = extraction_accuracy(extractions, our_extraction_is_right)
    ours |= report_scores(reports, answers.equivalent, lambda case: our_extraction_is_right(as_extraction(case)))
    for name, questions in (("gsm8k", gsm8k), ("math", math)):
        symbolic.key.cache_clear()
        ours[f"answers_per_s_{name}"] = answers_per_s(questions, answers.cluster, f"ours, {name}")

    def equal(gold: str, answer: str) -> bool:
        return math_verify_equal(math_verify_answer(gold), math_verify_answer(answer))

    theirs: dict[str, float] = pair_scores(pairs, equal)
    theirs["extraction_accuracy"] = extraction_accuracy(extractions, math_verify_extraction_is_right)
    theirs |= report_scores(reports, equal, lambda case: math_verify_extraction_is_right(as_extraction(case)))
    theirs["answers_per_s_gsm8k"] = answers_per_s(gsm8k[: 10 * few], math_verify_cluster, "Math-Verify, gsm8k")
    theirs["answers_per_s_math"] = answers_per_s(math[:few], math_verify_cluster, "Math-Verify, math")

    table = Table(
        title=f"{len(pairs)} pairs, {len(extractions)} extractions, {len(reports)} cases after reports",
        title_justify="left",
    )
    for column in ("", "east-ray", "Math-Verify"):
        table.add_column(column, justify="left" if not column else "right")
    for name, value in ours.items():
        pattern = "{:.3f}" if name.endswith("accuracy") else "{:,.0f}"
        table.add_row(name, pattern.format(value), pattern.format(theirs[name]))
    Console().print(table)
    print(json.dumps(ours | {f"{name}_math_verify": value for name, value in theirs.items()}))


if __name__ == "__main__":
    main()
