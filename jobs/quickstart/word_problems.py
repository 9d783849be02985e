#!/usr/bin/env python3
"""Grade-school word problems for the quick start: questions, worked solutions, and intended mistakes.

A question is a chain of one to five clauses about the number of things that a person has. Each clause is one step: an
operation on the running number. The solution has one line for each step.

    Ana has 5 apples. Ben has 3 times as many apples as Ana. He gives 4 apples away. How many apples does Ben have now?

    5*3=15
    15-4=11
    The answer is \\boxed{11}.

Every kind of clause also has a misconception: one specific wrong operation, such as reading "3 times as many" as
"3 more". Misconceptions have two uses: `make_model.py` teaches some of them to the quick start's model, and a wrong
reference answer can be the result of a misconception.

The seed determines everything. Only the standard library is used. To write the two files of this folder again:

    python jobs/quickstart/word_problems.py --quickstart jobs/quickstart

or another file, here 500 questions of two or three steps, of which one in five has a wrong reference answer:

    python jobs/quickstart/word_problems.py --out pool.jsonl --count 500 --seed 7 --steps 2:3,3:1 --wrong-share 0.2

or a file of the quick start's kinds of questions, of which the model solves three in four with confidence:

    python jobs/quickstart/word_problems.py --out pool.jsonl --count 500 --easy-share 0.75 --wrong-share 0.2

Files that differ only in --wrong-share have the same questions, and the wrong references of a smaller share are among
those of a larger one, so responses sampled for one file can be used for all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

MAX_NUMBER = 99  # largest number in a question or its solution: the model memorizes its arithmetic
START_NUMBERS = range(3, 21)
MAX_TRIES = 40  # draws of a clause's operands before the whole question is drawn again

WrongReferences = Literal["stubborn", "diverse"]

# ---------------------------------------------------------------------------------------------------------------------
# Clauses
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClauseKind:
    """One kind of change of the running number.

    `operation` and `misconception` are expressions over the running number {0} and the clause's own operands {1}, {2}.
    A phrasing may use these operands and: name, He and he (who holds the things), other (a second person), noun.
    """

    operation: str
    misconception: str
    operands: tuple[range, ...]
    phrasings: tuple[str, ...]
    passes_to_other: bool = False  # the next clause is about the second person
    makes_dollars: bool = False  # the next clause counts dollars instead of things


CLAUSE_KINDS: Mapping[str, ClauseKind] = {
    "gets_more": ClauseKind(
        "{0}+{1}",
        "{0}-{1}",
        (range(2, 13),),
        ("{He} gets {1} more {noun}.", "Then {he} finds {1} more {noun}.", "{name} is given {1} more {noun}."),
    ),
    "gives_away": ClauseKind(
        "{0}-{1}",
        "{0}+{1}",
        (range(2, 13),),
        ("{He} gives {1} {noun} to {other}.", "Then {he} loses {1} {noun}.", "{name} gives away {1} {noun}."),
    ),
    "more_than": ClauseKind(
        "{0}+{1}",
        "{0}-{1}",
        (range(2, 10),),
        ("{other} has {1} more {noun} than {name}.", "{other} has {1} {noun} more than {name}."),
        passes_to_other=True,
    ),
    # "Inconsistent language": the word says fewer, the other person has more (Lewis and Mayer, 1987).
    "fewer_than": ClauseKind(
        "{0}+{1}",
        "{0}-{1}",
        (range(2, 10),),
        ("This is {1} fewer {noun} than {other} has.", "{name} has {1} fewer {noun} than {other}."),
        passes_to_other=True,
    ),
    "times_as_many": ClauseKind(
        "{0}*{1}",
        "{0}+{1}",
        (range(2, 6),),
        ("{other} has {1} times as many {noun} as {name}.", "{other} has {1} times the {noun} of {name}."),
        passes_to_other=True,
    ),
    "shares_equally": ClauseKind(
        "{0}/{1}",
        "{0}-{1}",
        (range(2, 6),),
        (
            "{He} puts the {noun} into {1} equal boxes and keeps one box.",
            "{name} makes {1} equal piles of {noun} and keeps one pile.",
        ),
    ),
    "sells_each": ClauseKind(
        "{0}*{1}",
        "{0}+{1}",
        (range(2, 6),),
        ("{He} sells each of the {noun} for {1} dollars.", "{name} sells all {noun} for {1} dollars each."),
        makes_dollars=True,
    ),
    "every_day": ClauseKind(
        "{0}+{1}*{2}",
        "{0}+{1}",  # counts one day only
        (range(2, 6), range(2, 6)),
        ("{He} gets {1} more {noun} every day for {2} days.", "For {2} days, {he} finds {1} {noun} each day."),
    ),
    "uses_every_day": ClauseKind(
        "{0}-{1}*{2}",
        "{0}-{1}",  # counts one day only
        (range(2, 6), range(2, 6)),
        ("{He} gives away {1} {noun} every day for {2} days.", "For {2} days, {he} loses {1} {noun} each day."),
    ),
    "half": ClauseKind(
        "{0}/{1}",
        "{0}-{1}",
        (range(2, 3),),
        ("{He} gives half of the {noun} to {other}.", "Then {he} loses half of the {noun}."),
    ),
    "double": ClauseKind(
        "{0}*{1}",
        "{0}+{1}",
        (range(2, 3),),
        ("Then {he} doubles the number of {noun}.", "{other} doubles the {noun} of {name}."),
    ),
    "combines": ClauseKind(
        "{0}+{0}+{1}",
        "{0}+{1}",  # forgets what the first person has
        (range(2, 10),),
        (
            "{other} has {1} more {noun} than {name} and gives {name} all of them.",
            "{other}, who has {1} more {noun} than {name}, gives all of them to {name}.",
        ),
    ),
    "left_over": ClauseKind(
        "{0}%{1}",
        "{0}/{1}",  # answers how many bags are full
        (range(3, 7),),
        (
            "{He} fills bags of {1} {noun} and keeps only the {noun} left over.",
            "{name} packs {1} {noun} to a box and keeps just what is left over.",
        ),
    ),
}

OPENINGS = ("{name} has {0} {noun}.", "{name} starts with {0} {noun}.", "There are {0} {noun} in the bag of {name}.")
QUESTIONS = (
    "How many {noun} does {name} have now?",
    "How many {noun} does {name} have in the end?",
    "Find the number of {noun} that {name} has.",
)
WOMEN = ("Ana", "Mia", "Zoe", "Lily", "Emma", "Ruth", "Nina", "Rosa", "Ivy", "Dora")
MEN = ("Ben", "Tom", "Sam", "Max", "Leo", "Omar", "Ken", "Paul", "Ravi", "Hugo")
NOUNS = (
    *("apples", "pencils", "books", "cards", "marbles", "cookies", "stickers", "shells"),
    *("toys", "stamps", "eggs", "balls", "kites", "beads", "roses", "buttons"),
)

# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic: the lines of a solution
# ---------------------------------------------------------------------------------------------------------------------

_EXPRESSION = r"\d+(?:[-+*/%]\d+)*"
_EQUATION = re.compile(rf"^({_EXPRESSION})=(-?\d+)$", re.MULTILINE)


@cache
def evaluate(expression: str) -> int:
    """The value of an expression of non-negative integers; `/` drops the remainder, `%` keeps only it.

    Responses may contain anything: raises ValueError if it is no such expression, ZeroDivisionError for a zero divisor.

    >>> evaluate("5+4*3"), evaluate("17/5"), evaluate("17%5")
    (17, 3, 2)
    """
    if re.fullmatch(_EXPRESSION, expression) is None:
        raise ValueError(f"not an expression of integers: {expression!r}")
    total = 0
    for sign, first, factors in re.findall(r"([-+]?)(\d+)((?:[*/%]\d+)*)", expression):
        value = int(first)
        for operator, number in re.findall(r"([*/%])(\d+)", factors):
            if operator == "*":
                value *= int(number)
            elif operator == "/":
                value //= int(number)
            else:
                value %= int(number)
        total += -value if sign == "-" else value
    return total


def equations(text: str) -> list[tuple[str, int]]:
    """The (expression, stated result) of each equation line of a solution or a response, in order.

    >>> equations("5*3=15\\n15-4=12\\nThe answer is \\\\boxed{12}.")
    [('5*3', 15), ('15-4', 12)]
    """
    return [(expression, int(result)) for expression, result in _EQUATION.findall(text)]


def steps_are_right(solution: str, response: str) -> bool:
    """Whether a response has the steps of the correct solution: the same operations on the same numbers, all true.

    Terms of a sum and factors of a product may be in any order. The stated answer and any text between the equations
    are ignored.

    Args:
        solution: the correct solution, as in the column ``answer`` of a row with a correct reference.
        response: the text to judge.

    >>> steps_are_right("5*3=15\\n15-4=11", "3*5=15\\n15-4=11"), steps_are_right("5*3=15\\n15-4=11", "5+3=8\\n8+3=11")
    (True, False)
    """
    expected, taken = equations(solution), equations(response)
    return len(expected) == len(taken) and all(
        _without_order(right) == _without_order(expression) and result == stated
        for (right, result), (expression, stated) in zip(expected, taken, strict=True)
    )


def _without_order(expression: str) -> list[tuple[str, ...]]:
    """The signed terms of an expression, sorted; the factors of products are sorted too."""
    terms = re.findall(r"[-+][^-+]+", f"+{expression}")
    return sorted(
        (term[0], *(sorted(term[1:].split("*")) if "/" not in term and "%" not in term else [term[1:]]))
        for term in terms
    )


def render_solution(lines: Sequence[tuple[str, int]]) -> str:
    """The text of a solution: one line per (expression, result), then the last result as the answer."""
    return "".join(f"{expression}={result}\n" for expression, result in lines) + answer_sentence(lines[-1][1])


def answer_sentence(answer: int) -> str:
    """The last line of every solution."""
    return f"The answer is \\boxed{{{answer}}}."


# ---------------------------------------------------------------------------------------------------------------------
# Word problems
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One clause as arithmetic. `operands` are the clause's own numbers, without the running number."""

    kind: str
    operands: tuple[int, ...]

    def expression(self, running: int, *, misconceived: bool = False) -> str:
        """The left side of this step's line, with `running` as the running number."""
        clause = CLAUSE_KINDS[self.kind]
        template = clause.misconception if misconceived else clause.operation
        return template.format(running, *self.operands)


@dataclass(frozen=True)
class WordProblem:
    """A question and its arithmetic: the start number, then the clauses in order."""

    question: str
    start: int
    steps: tuple[Step, ...]

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its clauses."""
        return frozenset(step.kind for step in self.steps)

    @property
    def answer(self) -> int:
        """The correct answer."""
        return self.lines()[-1][1]

    def lines(self, misconceptions: Collection[str] = ()) -> list[tuple[str, int]]:
        """(expression, result) per step; a clause of a kind in `misconceptions` is done wrong.

        Later steps continue with the wrong number. A division then drops its remainder. A number below zero raises
        ValueError; `generate` draws no question for which misconceptions lead there.
        """
        running, lines = self.start, []
        for step in self.steps:
            expression = step.expression(running, misconceived=step.kind in misconceptions)
            running = evaluate(expression)
            if running < 0:
                raise ValueError(f"a number below zero: {expression}={running}")
            lines.append((expression, running))
        return lines

    def solution(self, misconceptions: Collection[str] = ()) -> str:
        """The text of `lines`, then the answer in a box."""
        return render_solution(self.lines(misconceptions))


@dataclass(frozen=True)
class Recipe:
    """Which questions to draw. Both mappings hold relative frequencies, which need not sum to one.

    They are the frequencies before rejection: a question with a number outside [0, MAX_NUMBER] is rejected. Long
    questions are rejected more often, so they are rarer in the result than in the recipe.
    """

    steps: Mapping[int, float]
    kinds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(CLAUSE_KINDS, 1.0))

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(f"steps: a question needs at least one step, got {dict(self.steps)}")
        if unknown := set(self.kinds) - set(CLAUSE_KINDS):
            raise ValueError(f"kinds: {sorted(unknown)} unknown; there are {sorted(CLAUSE_KINDS)}")
        if self.kinds.keys() <= {"sells_each"}:
            raise ValueError("kinds: needs another kind besides sells_each, which can occur only once in a question")


def generate(recipe: Recipe, seed: int, exclude: Collection[str] = ()) -> Iterator[WordProblem]:
    """An infinite stream of word problems with different texts, none of them in `exclude`."""
    rng = random.Random(seed)
    seen = set(exclude)
    while True:
        problem = _draw(recipe, rng)
        if problem is not None and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def _draw(recipe: Recipe, rng: random.Random) -> WordProblem | None:
    """One word problem, or None if the draw leads to a negative, fractional or too large number."""
    num_steps = rng.choices(list(recipe.steps), list(recipe.steps.values()))[0]
    start = running = rng.choice(START_NUMBERS)
    name, noun = rng.choice(WOMEN + MEN), rng.choice(NOUNS)
    sentences = [rng.choice(OPENINGS).format(start, name=name, noun=noun)]
    steps: list[Step] = []
    for _ in range(num_steps):
        kinds = {kind: share for kind, share in recipe.kinds.items() if noun != "dollars" or kind != "sells_each"}
        step = _draw_step(rng.choices(list(kinds), list(kinds.values()))[0], running, rng)
        if step is None:
            return None
        clause = CLAUSE_KINDS[step.kind]
        other = rng.choice([person for person in WOMEN + MEN if person != name])
        pronoun = "she" if name in WOMEN else "he"
        words = {"name": name, "he": pronoun, "He": pronoun.capitalize(), "other": other, "noun": noun}
        sentences.append(rng.choice(clause.phrasings).format(running, *step.operands, **words))
        name = other if clause.passes_to_other else name
        noun = "dollars" if clause.makes_dollars else noun
        running = evaluate(step.expression(running))
        steps.append(step)
    sentences.append(rng.choice(QUESTIONS).format(name=name, noun=noun))
    problem = WordProblem(" ".join(sentences), start, tuple(steps))
    # The solution by any mixture of misconceptions must also have only allowed numbers.
    present = sorted(problem.kinds)
    mixtures = (mixture for size in range(1, len(present) + 1) for mixture in itertools.combinations(present, size))
    return problem if all(_can_be_written(problem, mixture) for mixture in mixtures) else None


def _can_be_written(problem: WordProblem, misconceptions: Collection[str]) -> bool:
    """Whether all numbers of this solution are in [0, MAX_NUMBER]."""
    try:
        return all(result <= MAX_NUMBER for _, result in problem.lines(misconceptions))
    except ValueError:
        return False


def _draw_step(kind: str, running: int, rng: random.Random) -> Step | None:
    """A step of this kind with a whole result from 1 to MAX_NUMBER that differs from the misconception's result."""
    for _ in range(MAX_TRIES):
        step = Step(kind, tuple(rng.choice(numbers) for numbers in CLAUSE_KINDS[kind].operands))
        if "/" in CLAUSE_KINDS[kind].operation and running % step.operands[0] != 0:
            continue
        result = evaluate(step.expression(running))
        misconceived = evaluate(step.expression(running, misconceived=True))
        if 1 <= result <= MAX_NUMBER and result != misconceived >= 0:
            return step
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Questions with reference answers, in the format of GSM8K
# ---------------------------------------------------------------------------------------------------------------------


def reference_row(problem: WordProblem) -> dict[str, Any]:
    """The question with its correct solution."""
    return _row(problem, problem.lines())


def wrong_reference_row(
    problem: WordProblem, how: WrongReferences, rng: random.Random, misconceptions: Collection[str] = ()
) -> dict[str, Any]:
    """The question with an intentionally wrong reference answer, marked as wrong.

    stubborn: one kind of clause is done by its misconception; kinds in `misconceptions` (those of the model) are
    preferred. A model with this misconception gives the same wrong answer repeatedly.
    diverse: the result of one random step is off by a small random number, and later steps continue with it.
    """
    right = problem.answer
    if how == "stubborn":
        kinds = sorted(kind for kind in problem.kinds if problem.lines([kind])[-1][1] != right)
        preferred = [kind for kind in kinds if kind in misconceptions]
        if kinds:
            return _row(problem, problem.lines([rng.choice(preferred or kinds)]), is_wrong=True)
        # No single misconception changes the answer, e.g. because 17/4 and 18/4 drop to the same number. Use a slip.
    while True:
        lines = _lines_with_slip(problem, rng)
        if lines is not None and lines[-1][1] != right:
            return _row(problem, lines, is_wrong=True)


def _lines_with_slip(problem: WordProblem, rng: random.Random) -> list[tuple[str, int]] | None:
    """The solution with an error in one step, or None if that leads to a number outside [0, MAX_NUMBER]."""
    slip_at = rng.randrange(len(problem.steps))
    running, lines = problem.start, []
    for position, step in enumerate(problem.steps):
        expression = step.expression(running)
        running = evaluate(expression) + (rng.choice((-10, -2, -1, 1, 2, 10)) if position == slip_at else 0)
        if not 0 <= running <= MAX_NUMBER:
            return None
        lines.append((expression, running))
    return lines


def _row(problem: WordProblem, lines: Sequence[tuple[str, int]], *, is_wrong: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {
        "question": problem.question,
        "answer": f"{render_solution(lines)}\n#### {lines[-1][1]}",
    }
    return row | {"reference_is_wrong": True} if is_wrong else row


def rows(
    problems: Sequence[WordProblem],
    seed: int,
    *,
    wrong_share: float = 0.0,
    wrong_references: WrongReferences = "stubborn",
    misconceptions: Collection[str] = (),
    nested: bool = False,
) -> list[dict[str, Any]]:
    """One row per word problem; exactly round(wrong_share * number of problems) of them have a wrong reference.

    nested: the wrong references of a smaller share are among those of a larger one, with the same wrong answers, and
    the same questions have a wrong reference with either kind. (The quick start's files are older than this option.)
    """
    if not 0 <= wrong_share <= 1:
        raise ValueError(f"wrong_share must be in [0, 1], got {wrong_share}")
    rng = random.Random(seed)
    num_wrong = round(wrong_share * len(problems))
    order = rng.sample(range(len(problems)), len(problems) if nested else num_wrong)
    wrong = set(order[:num_wrong])
    return [
        wrong_reference_row(
            problem, wrong_references, random.Random(f"{seed}:{problem.question}") if nested else rng, misconceptions
        )
        if position in wrong
        else reference_row(problem)
        for position, problem in enumerate(problems)
    ]


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, replacing the file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# The two files of the quick start
# ---------------------------------------------------------------------------------------------------------------------

# The kinds of clause that the quick start's model does wrong (make_model.py teaches them), with the frequency at
# temperature 1. Above one half the misconception is also the model's greedy answer: a stubborn error.
PLANTED_MISCONCEPTIONS: Mapping[str, float] = {
    "times_as_many": 0.60,
    "fewer_than": 0.45,
    "every_day": 0.40,
    "shares_equally": 0.30,
    "combines": 0.30,
}
# Questions that the model solves, and questions with uncertain answers; the quick start has half of each.
EASY = Recipe(steps={1: 1.0}, kinds={kind: 1.0 for kind in CLAUSE_KINDS if kind not in PLANTED_MISCONCEPTIONS})
HARD = Recipe(
    steps={1: 0.15, 2: 0.45, 3: 0.3, 4: 0.1},
    kinds={kind: 2.0 if kind in PLANTED_MISCONCEPTIONS else 1.0 for kind in CLAUSE_KINDS},
)
NUM_TRAIN, NUM_TEST = 600, 2000
TRAIN_SEED, TEST_SEED = 1, 2
WRONG_SHARE = 0.1


def easy_and_hard(
    num_questions: int, seed: int, exclude: Collection[str] = (), *, easy_share: float = 0.5
) -> list[WordProblem]:
    """Shuffled word problems from EASY and HARD with different texts; round(easy_share * number) are easy.

    The quick start's model solves the easy ones with confidence, so their weights by entropy are about 0.
    """
    if not 0 <= easy_share <= 1:
        raise ValueError(f"easy_share must be in [0, 1], got {easy_share}")
    easy = list(itertools.islice(generate(EASY, seed, exclude), round(easy_share * num_questions)))
    hard_exclude = {*exclude, *(problem.question for problem in easy)}
    hard = list(itertools.islice(generate(HARD, seed, hard_exclude), num_questions - len(easy)))
    problems = easy + hard
    random.Random(seed).shuffle(problems)
    return problems


def quickstart_problems() -> tuple[list[WordProblem], list[WordProblem]]:
    """The word problems of train.jsonl and test.jsonl; no text is in both."""
    train = easy_and_hard(NUM_TRAIN, TRAIN_SEED)
    test = easy_and_hard(NUM_TEST, TEST_SEED, exclude={problem.question for problem in train})
    return train, test


def write_quickstart(folder: Path) -> None:
    """Write train.jsonl with some wrong references and test.jsonl without."""
    train, test = quickstart_problems()
    train_rows = rows(train, TRAIN_SEED, wrong_share=WRONG_SHARE, misconceptions=PLANTED_MISCONCEPTIONS)
    write_jsonl(folder / "train.jsonl", train_rows)
    write_jsonl(folder / "test.jsonl", rows(test, TEST_SEED))


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------


def _step_shares(text: str) -> dict[int, float]:
    """`1:0.5,2:0.5` as a mapping; a bare number counts 1."""
    pairs = (part.partition(":") for part in text.split(","))
    return {int(steps): float(share or 1) for steps, _, share in pairs}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Generate grade-school word problems in the format of GSM8K.")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--quickstart", type=Path, metavar="DIR", help="write the quick start's train and test files")
    target.add_argument("--out", type=Path, metavar="FILE", help="write one JSON Lines file, by the options below")
    parser.add_argument("--count", type=int, default=500, help="number of questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=_step_shares, help="e.g. 1:0.5,2:0.3,3:0.2, which is the default")
    parser.add_argument("--kinds", help="kinds of clause, separated by commas; all by default")
    parser.add_argument(
        "--easy-share",
        type=float,
        help="in place of --steps and --kinds: draw the quick start's questions, with this share of easy ones",
    )
    parser.add_argument("--wrong-share", type=float, default=0.0, help="share of wrong reference answers, in [0, 1]")
    parser.add_argument("--wrong-references", choices=("stubborn", "diverse"), default="stubborn")
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], help="files with questions to leave out")
    arguments = parser.parse_args()

    if arguments.quickstart:
        write_quickstart(arguments.quickstart)
        return
    if arguments.easy_share is not None and (arguments.steps or arguments.kinds):
        parser.error("--easy-share draws the quick start's questions, so --steps and --kinds cannot be given with it")
    lines = itertools.chain.from_iterable(path.read_text(encoding="utf-8").splitlines() for path in arguments.exclude)
    exclude = {json.loads(line)["question"] for line in lines}
    if arguments.easy_share is not None:
        problems = easy_and_hard(arguments.count, arguments.seed, exclude, easy_share=arguments.easy_share)
    else:
        kinds = arguments.kinds.split(",") if arguments.kinds else CLAUSE_KINDS
        recipe = Recipe(arguments.steps or {1: 0.5, 2: 0.3, 3: 0.2}, dict.fromkeys(kinds, 1.0))
        problems = list(itertools.islice(generate(recipe, arguments.seed, exclude), arguments.count))
    references = rows(
        problems,
        arguments.seed,
        wrong_share=arguments.wrong_share,
        wrong_references=arguments.wrong_references,
        misconceptions=PLANTED_MISCONCEPTIONS,
        nested=True,
    )
    write_jsonl(arguments.out, references)


if __name__ == "__main__":
    main()
