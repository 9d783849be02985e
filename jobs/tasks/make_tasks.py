"""Makes the data of the three worked examples beside this file: questions with the responses of an imagined model.

    python jobs/tasks/make_tasks.py

The same files come out each time. A response is right with a probability of its question's own, so entropies differ.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NUM_QUESTIONS, NUM_RESPONSES = 12, 8
Row = dict[str, Any]


def multiple_choice(rng: random.Random) -> Row:
    """Which of four numbers is largest; the options are a column."""
    numbers = rng.sample(range(100, 1000), 4)
    options = [f"{number:,} metres" for number in numbers]
    right = numbers.index(max(numbers))
    shown = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))

    def response(place: int) -> str:
        letter, option = "ABCD"[place], options[place]
        forms = ["{0}", "({0})", "Answer: {0}. {1}", r"It is the largest: \boxed{{{0}}}", "The answer is {1}.", "{1}"]
        return rng.choice([*forms, "I compare them.\n\n**{0})** {1}"]).format(letter, option)

    asked = {"question": f"Which distance is the longest?\n{shown}", "reference_answer": "ABCD"[right]}
    wrong = [place for place in range(4) if place != right]
    return asked | {"options": options, "responses": answered(rng, response, right, wrong)}


def short_text(rng: random.Random) -> Row:
    """Who stands between two others."""
    names = rng.sample(["the old man", "Ada O'Neill", "a Dr. Who", "José", "Zoë Smith-Jones", "the twins"], 4)

    def response(name: str) -> str:
        forms = ["{0}", "{0}.", "The answer is {0}.", "Answer: {0}", r"\boxed{{\text{{{0}}}}}", "I look:\n#### {0}"]
        return rng.choice(forms).format(rng.choice([name, name.upper(), name.removeprefix("the ")]))

    asked = f"In a row stand, from left to right: {'; '.join(names)}. Who stands next to the last, on the left?"
    return {"question": asked, "reference_answer": names[2]} | {
        "responses": answered(rng, response, names[2], [names[0], names[1], names[3]])
    }


def code(rng: random.Random) -> Row:
    """A function of a list, with its tests."""
    step, start = rng.randint(2, 99), rng.randint(0, 9)
    tests = [f"assert total({list(range(size))}) == {start + step * sum(range(size))}" for size in (0, 1, 4)]

    def response(expression: str) -> str:
        body = f"def total(numbers):\n    return {expression}\n"
        return rng.choice(
            ["Here it is:\n```python\n{0}```\nIt adds up.", "```\n{0}```", "```python\nimport math\n{0}```"]
        ).format(body)

    right = [f"{start} + {step} * sum(numbers)", f"sum(({step} * n for n in numbers), {start})"]
    wrong = [f"{start} + sum(numbers)", f"{step} * sum(numbers) / len(numbers)", f"{start} + numbers[0]", "math.inf("]
    asked = f"Write total(numbers): {start} plus {step} times the sum of the list."
    return {"question": asked, "reference_answer": " ".join(["passed"] * len(tests)), "tests": tests} | {
        "responses": answered(
            rng, lambda which: response(rng.choice(right) if which == "right" else which), "right", wrong
        )
    }


def answered(rng: random.Random, response: Callable[[Any], str], right: Any, wrong: list[Any]) -> list[str]:
    """Responses to a question: right ones with a probability of its own, and a few without an answer."""
    ability = rng.choice([1.0, 0.8, 0.5, 0.2])
    silent = "I do not know, since there are many ways to look at this question.\nLet me think again."
    chosen = (right if rng.random() < ability else rng.choice(wrong) for _ in range(NUM_RESPONSES))
    return [silent if rng.random() < 0.05 else response(one) for one in chosen]


def files() -> Iterator[tuple[str, str]]:
    """Name and content of each file."""
    for make in (multiple_choice, short_text, code):
        rng = random.Random(make.__name__)
        rows = (make(rng) for _ in range(NUM_QUESTIONS))
        yield f"{make.__name__}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for name, content in files():
        Path(__file__).with_name(name).write_text(content, encoding="utf-8")
