"""Extraction: tables of responses by kind, to which each past mistake is added; settings; properties; hostile input."""

import random
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_answers import labelled
from pydantic import ValidationError

from east_ray.answers import MAX_ANSWER_CHARS, Extraction, equivalent, extract, extract_answer
from east_ray.answers.announcements import ANNOUNCEMENTS
from east_ray.answers.graders import MathGrader, load
from east_ray.config import AnswersConfig
from east_ray.config.base import compiled_pattern
from east_ray.records import Question

QUESTION = Question("q", "?")
Rows = list[tuple[str, str | None]]

#: The text of the answer, character for character.
RESPONSES = [
    (r"first \boxed{1}, then \boxed{2}", "2"),
    (r"\boxed{\frac{\sqrt{3}}{\sqrt{2}+1}}", r"\frac{\sqrt{3}}{\sqrt{2}+1}"),
    (r"\boxed{\{1,2,\{3\}\}}", r"\{1,2,\{3\}\}"),
    (r"\boxed 5", "5"),
    (r"\fbox{11}", "11"),
    (r"x = \boxed{3} and y = \boxed{4}", "3, 4"),
    (r"\boxed{(1, 2)}, \boxed{(2, 1)}", "(1, 2), (2, 1)"),
    (r"\boxed{17} is wrong and \boxed{18}", "18"),
    (r"\boxed{2\pi r} where r=3 gives \boxed{6\pi}", r"6\pi"),
    ("\\boxed{5}\n\n\\boxed{6}", "6"),
    (r"We get $\boxed{17}$. Let me double check: \boxed{17", "17"),
    (r"First \boxed{3}, then \boxed{}", "3"),
    ("\\boxed{3}\n\nProblem: What is 2+2?\nSolution: \\boxed{4}", "3"),
    ("The answer is 10.\n\nQuestion: Bob has 5 apples.\nThe answer is 5.", "10"),
    ("The answer is 7.<|im_end|>\n<|im_start|>user\nThe answer is 8.", "7"),
    (r"<think>maybe \boxed{1}</think>The answer is 2", "2"),
    (r"<think>so \boxed{1} is it", "1"),
    ("So the total is\n#### 1,234", "1,234"),
    ("#### Step 4\nThe answer is 3", "3"),
    ("The answer is -3.5.", "-3.5"),
    ("**Final Answer**: $12$", "12"),
    ("The answers are $3$ and $5$.", "3, 5"),
    ("The answer is (C).", "C"),
    ("The answer is for sure D, it can't be A or B", "D"),
    ("Hence the correct option is (B).", "B"),
    ("Answer: 41 was a wrong guess.\nAnswer: 42", "42"),
    ("Final Answer: The volume of $ABCD$ is 120. I hope it is correct.", "120"),
    ("Thus $x <= 2$ is our answer.", "x <= 2"),
    ("答案是 8", "8"),
    (r"La réponse est \boxed{3,5}", "3.5"),
    (r"The roots are \boxed{3,5}", "3,5"),
    ("The answer is 2 * 3 = 6 apples.", "6"),
    ("The answer is $3 + $4 = $7.", "$7"),
    ("The answer is 100 - 20 = <<100-20=80>>80.", "80"),
    ("Answer: y = 2x + 1", "y = 2x + 1"),
    ("The answer is f(x) = x^2 + 3.", "f(x) = x^2 + 3"),
    ("The answer is x = 2 or x = 3.", "x = 2 or x = 3"),
    ("The answer is A = 9 pi.", "A = 9 pi"),
    ("Answer: 5 (five)", "5"),
    ("The answer is 5, which is odd.", "5"),
    ("The answer is 3/4 of a cup.", "3/4"),
    ("The answer is 12 miles per hour.", "12 miles per hour"),
    ("The answer to the question is 64.", "64"),
    ("The answer => 5", "5"),
    ("The answer is -1 < x < 3.", "-1 < x < 3"),
    ("The answer is x > 3 or x < -1.", "x > 3 or x < -1"),
    ("The answer is 2 hours and 30 minutes.", "2 hours and 30 minutes"),
    ("The answers are A, B and D.", "A, B and D"),
    ("The answer is A total of 15.", "15"),
    ("The answer is 6!", "6"),
    ("The answer is 5! = 120.", "120"),
    ("The answer is 5 <<2+3=5>>5.", "5"),
    ("The answer is 7</s>", "7"),
    ("<answer> $x=\\frac{1}{2}$ </answer>", "$x=\\frac{1}{2}$"),
    ("Ans: 64", "64"),
    ("Final Answer -> 64", "64"),
    ("Therefore, option C is correct.", "C"),
    ("\\boxed{5}\n\n## Problem 2\nNow \\boxed{7}", "5"),
    (r"\boxed{3}" + " " * 90 + r"and \boxed{4}", "4"),
    ("<answer>The answer is 5 apples, so 5.</answer>", "5 apples"),
    ("<answer>**5**</answer>", "5"),
    ("The answer is definitely 5.", "5"),
]


@pytest.mark.parametrize(("response", "expected"), RESPONSES)
def test_extraction(response: str, expected: str) -> None:
    found = extract(response)
    assert (found.answer, found.explicit, found.reason) == (expected, True, None)
    assert found.boxed == ("\\boxed" in response.rpartition("</think>")[2] or "fbox" in response)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (r"start \boxed{never closes", "truncated"),
        (r"\boxed{}", "empty"),
        ("   \n\n", "empty"),
        ("I cannot solve this problem.", "none"),
        ("Step 1: add 3 and 4 to get 7. Step 2: multiply by", "none"),
        ("The answer is not clear.", "none"),
        (r"\boxed{" + "1" * (MAX_ANSWER_CHARS + 1) + "}", "too_long"),
        ("Janet makes $18 every day.", "none"),
        ("\\boxed{}\n\nProblem: 1 + 1\n\\boxed{2", "empty"),
    ],
)
def test_no_answer_has_a_reason(response: str, reason: str) -> None:
    assert extract(response) == Extraction(None, reason)  # type: ignore[arg-type]
    assert extract_answer(response) is None


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Janet makes $18 every day.", "18"),
        ("She has 1,234,567 stamps.", "1234567"),
        ("Soucis : 2,74 $ a..", "2.74"),
        ("The ordered pair $(x, y)$ that solves it is $(7, 6)$. <|im_start|>user", "(7, 6)"),
        ("So there are 6! = 720 ways.\n\nTherefore 720 / 2 = 360.", "360"),
        ("Step 1: add 3 and 4 to get 7. Step 2: multiply by", None),
        (r"Now we have \[\frac{386}{64}", None),
        ("\\boxed{3\nThen 7 remain.", None),
        ("She has 7 eggs left.\nI hope this is correct.", "7"),
        ("It is 3.</think>\n\nQuestion: we find 4.", "4"),
        ("First we pick A, then there are 4 left.\n\nSo there are 24 ways.", "24"),
        ("Suppose we choose A. Then B has 3 left. So there are 12 ways in total.", "12"),
        ("先选A，再选B，共有12种方法。", "12"),
        ("so B is the right angle, and AC = 5", "5"),
        ("Thus A is the best player. She scored 12 points.", "12"),
        ("| Step | Answer | Notes |\n|1|2|3|\n\nSo the total is 12.", "12"),
        ("The best choice: A costs 12. So the total is 24.", "24"),
    ],
)
def test_last_number_is_an_option_and_not_explicit(response: str, expected: str | None) -> None:
    found = extract(response, last_number=True)
    assert (found.answer, found.explicit, found.boxed) == (expected, False, False)


# -------------------------------------------------------------------------------------------------------------- kinds

#: The answer up to equality. None: the response has none.
BOXES: Rows = [
    (r"\Boxed{42}", "42"),
    (r"\box{42}", "42"),
    (r"\framebox[3cm]{42}", "42"),
    (r"\framebox[3cm][l]{42}", "42"),
    (r"\boxed$42$", "42"),
    ("boxed{70}", "70"),
    ("So boxed{70}.", "70"),
    ("oxed{70}", "70"),
    ("\x08oxed{\x0crac{1}{2}}", r"\frac{1}{2}"),
    (r"\fcolorbox{red}{white}{42}", "42"),
    (r"\colorbox{yellow}{$42$}", "42"),
    (r"\bbox[border:2px solid red]{7}", "7"),
    (r"\boxed\frac12", r"\frac12"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\boxed\text{Evelyn}", "Evelyn"),
    ("\\boxed{ }\nThe answer is 3", "3"),
    (r"\boxed{\ldots} then the answer is 9", "9"),
    ("I will write \\boxed{...}.\nAnswer: 9", "9"),
    (r"Put it in \boxed{your answer}. The answer is 12", "12"),
    (r"\boxed{\text{answer}} The answer is 12", "12"),
    (r"\boxed{<answer>} The answer is 12", "12"),
    (r"Use \boxed and then finish. The answer is 12", "12"),
    (r"the `\boxed` command. Answer: 12", "12"),
    (r"\boxed{<}", "<"),
    (r"\boxed{+}", "+"),
    (r"\boxed{\{\}}", r"\{\}"),
    (r"(a) \boxed{2} (b) \boxed{3}", "2,3"),
    ("(a) The mean is \\boxed{2}.\n\n(b) The median is \\boxed{3}.", "2,3"),
    ("**Part A:** \\boxed{2}\n\n**Part B:** \\boxed{3}", "2,3"),
    (r"(i) \boxed{2}; (ii) \boxed{3}; (iii) \boxed{5}", "2,3,5"),
    ("a) \\boxed{1}\nb) \\boxed{4}", "1,4"),
    ("1. add: \\boxed{2}\n2. double: \\boxed{4}", "4"),
    ("- $x=\\boxed{2}$\n- $y=\\boxed{3}$", "2,3"),
    (r"$x=\boxed{2}$ or $x=\boxed{3}$", "2,3"),
    (r"\boxed{2} and so the answer is \boxed{6}", "6"),
    (r"\boxed{2}. Wait, that is wrong: \boxed{3}", "3"),
    (r"\boxed{2} but actually \boxed{3}", "3"),
    (r"I first thought \boxed{2}, not \boxed{3}", "3"),
    (r"The perimeter is \boxed{20} and the area is \boxed{24}", "20,24"),
    (r"One root is \boxed{2}. The other root is \boxed{-3}.", "2,-3"),
    (r"\boxed{\sqrt{2}} ≈ \boxed{1.414}", r"\sqrt{2}"),
    (r"$\boxed{\frac{1}{3}}$, or approximately $\boxed{0.33}$", r"\frac13"),
    (r"\boxed{\pi} (approximately \boxed{3.14})", r"\pi"),
    (r"\boxed{\text{Answer: } 7}", "7"),
    (r"\boxed{\text{The final answer is } \frac{1}{2}}", r"\frac12"),
    (r"\boxed{\text{The answer is 42}}", "42"),
    (r"\boxed{Answer: 42}", "42"),
    (r"\boxed{\text{Answer: C}}", "C"),
    (r"\boxed{\mathrm{Answer} = 5}", "5"),
    ("First \\boxed{10}.\n\nFinal Answer: The final answer is $10,455$. I hope it is correct.", "10455"),
    ("\\boxed{5}\n\n**Answer: 6**", "6"),
    ("\\boxed{5}\n\n**Answer:** 5", "5"),
    (r"\boxed{5}. So the answer is 6 apples", "5"),
    ("\\boxed{5}\nAnswer: see above", "5"),
    ("╔════╗\n║ 42 ║\n╚════╝", "42"),
    ("┌───┐\n│ x = 5 │\n└───┘", "5"),
    (r"The answer is \boxed{12", None),
    (r"The answer is $\frac{3}{4", None),
    (r"The answer is \(\frac{1}{2", None),
    (r"Answer: \[ x = 3", None),
    (r"The answer is $\sqrt{2", None),
    (r"#### \frac{1}{2", None),
    ("The answer is\n\\[\n\\frac{3}{4", None),
    ("The answer is 3 +", None),
    (r"The answer is \frac{1}", None),
    (r"Therefore \boxed{\frac{1}{2", None),
    ("The answer is\n\n$$\\boxed{3}$$", "3"),
    ("/boxed{42}", "42"),
    (r"\\boxed{42}", "42"),
    (r"\boxed {42}", "42"),
    (r"The answer is 42\boxed{}", "42"),
    (r"The answer is $\boxed{}$ 42.", "42"),
    ("Use the \\boxed{} notation. So 3+4 = 7.\n**Answer**: 7", "7"),
    (r"The answer is $\boxed{3+4=7}$", "7"),
    ("\\boxed{5}\n\nTherefore, the answer is the number of apples, 7 minus 2.", "5"),
    ("\\boxed{5}\n\nThe answer is 5 apples.", "5"),
    ("\\boxed{\\frac12}\n\nFinal answer: one half", "1/2"),
    ("\\boxed{5}\nNote: the final answer 6 is for part b", "5"),
    ("\\boxed{12}\n\n**Final Answer:** $\\boxed{12}$", "12"),
    ("The answer is \\boxed{5}.\n\nAnswer: B", "B"),
    (r"x = \boxed{3}, so the total is \boxed{9}", "9"),
    (r"Step 1 gives \boxed{3}. Step 2 gives \boxed{4}. The answer is \boxed{7}.", "7"),
    (r"Either \boxed{3} or \boxed{4}", "3,4"),
    ("(1) \\boxed{3}\n(2) \\boxed{4}", "3,4"),
    ("Part 1: \\boxed{3}\nPart 2: \\boxed{4}", "3,4"),
    (r"Question 1: \boxed{3}", "3"),
    ("**(a)** $\\boxed{3}$\n\n**(b)** $\\boxed{4}$\n\n**(c)** $\\boxed{5}$", "3,4,5"),
    ("(a) We have 3. \\boxed{3}\n\n(b) Wait, redo. \\boxed{9}. No: \\boxed{4}", "4"),
    (r"\boxed{3} \text{ and } \boxed{4}", "3,4"),
    (r"\boxed{3}\quad\boxed{4}", "3,4"),
    (r"\boxed{3}, \boxed{4}, and \boxed{5}", "3,4,5"),
    (r"The minimum is \boxed{1}, and the maximum is \boxed{9}.", "1,9"),
    (r"\boxed{1} cm by \boxed{2} cm", "2"),
    (r"It is \boxed{5}, and thus we get \boxed{10}", "10"),
    (r"We have \boxed{x=2} and therefore \boxed{4}", "4"),
    (r"\boxed{3} (not \boxed{4})", "4"),
    (r"$\boxed{0.5} = \boxed{\frac{1}{2}}$", "1/2"),
    (r"So we get \boxed{\text{Answer}}: 5. The answer is 5.", "5"),
    (r"...and \boxed{5}. Then \[ x = ", "5"),
    *((rf"$\boxed{{5}}${join}$\boxed{{6}}$", "5,6") for join in ("，", "、", "和", "，或 ", "과 ", " または ")),
    *((rf"$\boxed{{5}}$ {join} $\boxed{{6}}$", "5,6") for join in ("et", "y", "und", "oder", "и", "или", "หรือ")),
    (r"$x=\boxed{5}$ oder $x=\boxed{6}$", "5,6"),
    (r"\boxed{5} \text{ und } \boxed{6}", "5,6"),
    (r"\boxed{5} is a multiple of \boxed{6}", "6"),
    ("$$x = \\boxed{5}$$\n$$y = \\boxed{7}$$", "5,7"),
    ("x = \\boxed{5}\ny = \\boxed{6}", "5,6"),
    ("x = \\boxed{5}\n\ny = \\boxed{6}", "6"),
    ("$$x = \\boxed{5}$$\n\n$$y = \\boxed{6}$$", "5,6"),
    ("r = \\boxed{2}\n\n$A = \\boxed{4\\pi}$", r"4\pi"),
    ("n = \\boxed{3}\nm = \\boxed{9}", "9"),
    (r"by equation (1) \boxed{5}. Using (2) \boxed{6}", "6"),
    ("x = \\boxed{5}\n\nx = \\boxed{6}", "6"),
    ("\\boxed{5}\n\ny = \\boxed{6}", "6"),
    (r"\begin{aligned} x &= \boxed{5} \\ y &= \boxed{6}\end{aligned}", "5,6"),
    (r"\alpha = \boxed{5}. $\beta = \boxed{6}$", "5,6"),
    (r"$x_1 = \boxed{5}$, $x_2 = \boxed{6}$", "5,6"),
    ("(1) 周长为 $\\boxed{5}$；(2) 面积为 $\\boxed{6}$", "5,6"),
    (r"(1) $\boxed{5}$; (2) $\boxed{6}$", "5,6"),
    ("（1）$\\boxed{5}$（2）$\\boxed{6}$", "5,6"),
    ("1. \\boxed5\n2. \\boxed6", "5,6"),
    ("1) $\\boxed{5}$\n2) $\\boxed{6}$", "5,6"),
    ("$$\\boxed{x=5}$$\n$$\\boxed{y=6}$$", "x=5,y=6"),
    ("\\boxed{x=5}\n\\boxed{x=6}", "6"),
    (r"From (1) we get \boxed{5}, and (2) gives \boxed{6}", "6"),
    (r"\boxed{0.333} \approx \boxed{\frac13}", "1/3"),
    (r"\boxed{0.5} ≈ \boxed{0.51}", "0.5"),
]

THINKING: Rows = [
    (r"<reason>\boxed{3}</reason>The answer is 4.", "4"),
    (r"<thought>\boxed{3}</thought>\boxed{4}", "4"),
    (r"<seed:think>\boxed{3}</seed:think>The answer is 4.", "4"),
    (r"◁think▷\boxed{3}◁/think▷ The answer is 4", "4"),
    (r"<|START_THINKING|>\boxed{3}<|END_THINKING|><|START_RESPONSE|>The answer is 4<|END_RESPONSE|>", "4"),
    (r"\boxed{3}</thinking>The answer is 4", "4"),
    ("<Thinking>\\boxed{3}</Thinking>\n4 it is. Answer: 4", "4"),
    (r"[THINK]\boxed{3}[/THINK]The answer is 4", "4"),
    (r"[think]\boxed{3}[/think]**4**", "3"),
    (r"<think>a</think>\boxed{5}<think>check \boxed{6}</think>Yes.", "5"),
    (r"analysis\boxed{3}assistantfinal\boxed{4}", "4"),
    (r"analysisTry \boxed{3}.assistantcommentaryhm assistantfinalThe answer is 4", "4"),
    (
        r"<|channel|>analysis<|message|>\boxed{3}<|end|><|start|>assistant<|channel|>final<|message|>The answer is 4",
        "4",
    ),
    (r"<scratchpad>\boxed{3}</scratchpad><answer>4</answer>", "4"),
    (r"<think>\boxed{3}</think>", "3"),
    ("<reflection>The answer is 3</reflection><output>The answer is 4</output>", "4"),
    ("Thinking...\n\\boxed{3}\n...done thinking.\n\nThe answer is 4.", "4"),
    ("Here is my thought process:\n\\boxed{3}\nHere is my response:\nThe answer is 4", "4"),
    ("<think>3</think><answer><|begin_of_box|>42<|end_of_box|></answer>", "42"),
    (r"<think time='3'>\boxed{3}</think> Answer: 4", "4"),
    (
        r"<|channel|>analysis<|message|>\boxed{3}<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>Answer: 4",  # noqa: E501
        "4",
    ),
]

HEADINGS: Rows = [
    ("**Final Result:** 12", "12"),
    ("Final result: 12", "12"),
    ("## Final Answer\n\n**12**", "12"),
    ("# Answer\n12", "12"),
    ("**Answer**\n\n$12$", "12"),
    ("__Answer__: 12", "12"),
    ("Answer\n\n12", "12"),
    ("**Final Answer:**\n\n\\[ 12 \\]", "12"),
    ("The final answer, in dollars, is 12.", "12"),
    ("The answer (in cm) is 12.", "12"),
    ("Result = 12", "12"),
    ("FINAL ANSWER: 12", "12"),
    ("The correct answer is option B.", "B"),
    ("Correct answer: (C) 42", "C"),
    ("Correct option: D", "D"),
    ("The final answer is therefore 12.", "12"),
    ("The answer must be 12.", "12"),
    ("The answer turns out to be 12", "12"),
    ('{"answer": "12"}', "12"),
    ('{"reasoning": "a", "answer": 12}', "12"),
    ("Answer: **12**.", "12"),
    ("So, 12 is the final answer.", "12"),
    ("Answer —12", "12"),
    ("ANSWER = 12", "12"),
    ("> **Answer:** 12", "12"),
    ("ANSWER: B) because", "B"),
    ("The correct answer is:\n\n**D) 15**", "D"),
    ("Answer: 3½", "3½"),
    ("Answer: 3 1/2", "3 1/2"),
    ("Answer: .5", "0.5"),
    ("Answer:\n$$\n12\n$$", "12"),
    ("Final answer: (x, y) = (3, 4)", "(3,4)"),
    ("We get an answer of 12.", "12"),
    ("giving us 12 as the final answer.", "12"),
    ("The answer might be 12.", "12"),
    ("Answer:\n(a) 2\n(b) 3", "2,3"),
    ("**Answer:**\n* 2\n* 3", "2,3"),
    ("<ANSWER>12</ANSWER>", "12"),
    ("Answer: None of the above", "none of the above"),
    ("My final answer: 12", "12"),
    ("So our answer is 12!", "12"),
    ("Answer (B)", "B"),
    ("**Answer (B)**", "B"),
    ("Answer: B.", "B"),
    ("Answer:B", "B"),
    ("Answer:12", "12"),
    ("Answer : 12", "12"),
    ("Final Answer:\n\n---\n\n12", "12"),
    (r"### Answer: \( 12 \)", "12"),
    ("**Final Answer**  \n12", "12"),
    ("***Answer:*** 12", "12"),
    ("Final Answer: **$12**", "12"),
    ("The answer: 12", "12"),
    ("The final answer is $$12$$", "12"),
    ("Answer: Area = 84", "84"),
    (r"Answer: $\frac{8}{2} = 4$", "4"),
    ("The answer, then, is 5.", "5"),
    ("The final answer is thus $x = 5$.", "5"),
    ("Answer: Approximately 5", "5"),
    ("Answer: About 5 apples", "5"),
    ("Answer: Yes", "yes"),
    ("Answer: False.", "false"),
    ("Answer: 5 is correct.", "5"),
    ("Answer: 5 is the total.", "5"),
    ("La respuesta correcta es: 18", "18"),
    ("**Respuesta:** 1.234,5", "1234.5"),
    ("Resultado: 18", "18"),
    ("Die Antwort ist also 18.", "18"),
    ("Daher lautet die Antwort: 18.", "18"),
    ("Wynik: 18", "18"),
    ("Risultato: 18", "18"),
    ("Answer:\n\nWe add 3 and 4 to get 7.", "7"),
    ("**Answer:** The total cost is $29.", "29"),
    ("**Answer:** Janet makes $18 every day.", "18"),
]

FIELDS: Rows = [
    ('{"answer": 5, "confidence": 0.9}', "5"),
    ('{"answer": "42", "explanation": "6*7"}', "42"),
    ('{"explanation":"6*7","answer":"C","score":1}', "C"),
    ('{"answer":"Paris","b":2}', "Paris"),
    ('{"answer": 1,234}', "1,234"),
    ("{'answer': '5', 'unit': 'cm'}", "5"),
    (r'{"answer": "\\frac{3}{4}", "x": 1}', "3/4"),
    (r'{"answer": "\frac{3}{4}", "x": 1}', "3/4"),
    (r'{"answer": "3\u03c0", "n": 2}', r"3\pi"),
    ('{"answer": [1, 2], "x": 3}', "[1,2]"),
    ('{"answer": true, "x": 1}', "true"),
    ('{\n "final_answer" : "x = 5",\n "n": 3\n}', "5"),
    ('{"answer": {"value": 5}, "n": 1}', "5"),
    ('{"答案": "42", "置信度": 0.9}', "42"),
    ('{"answer": "The total is 5 apples.", "n": 1}', "5"),
    ('{"answer": "B) 12", "n": 1}', "B"),
    ('{"answer": 1/2, "n": 1}', "1/2"),
    ('{"answer": "", "n": 1}', None),
    ('{"answer": null, "n": 1}', None),
    ('{"answer": "42', "42"),
]

REMARKS: Rows = [
    ("The answer is 72, in total.", "72"),
    ("The answer is 5; not 6.", "5"),
    ("The answer is 5 (not 6).", "5"),
    ("The answer is $5$, not $6$.", "5"),
    ("The answer is 5 instead of 6.", "5"),
    ("The answer is 5 – not 6", "5"),
    ("The answer is 5, as required.", "5"),
    ("The answer is 5 as expected.", "5"),
    ("The answer is **5**, not 6", "5"),
    ("The answer is 5, of course.", "5"),
    ("The answer is 5 altogether.", "5"),
    ("The answer is 5 dollars, rounded to the nearest dollar.", "5"),
    ("The answer is fifteen (15).", "15"),
    ("The answer is x (5)", "5"),
    ("The answer is just 12.", "12"),
    ("The answer is <strong>12</strong>.", "12"),
    ("The answer is <span style='color:red'>12</span>.", "12"),
    ("[Answer: 12]", "12"),
    ("(The answer is 12.)", "12"),
    ("The answer is (1, 2).", "(1,2)"),
    ("The answer is [0, 1).", "[0,1)"),
    ("The answer is (0, 5].", "(0,5]"),
    ("The answer is 12, and we are done.", "12"),
    ("The answer is 3, 4, and 5.", "3,4,5"),
    ("The answer is 3 and 4.", "3,4"),
    ("The answer is x = 2, y = 3.", "x=2,y=3"),
    ("The answer is 12. Not 13.", "12"),
    ("The answer is 12 — obviously", "12"),
    ("The answer is 1,234, not 1,235.", "1234"),
    ("The answer is 50%, or half.", "50"),
    ("Answer: 12, since 3*4=12", "12"),
    ("The answer is 12 ✅", "12"),
    ("The answer is 3:4", "3/4"),
    ("The answer is the set {1,2,3}.", "{1,2,3}"),
    ("The answer is (3, 4), not (4, 3).", "(3,4)"),
    ("The answer is 12 cm², not 13.", "12"),
    ("The answer is 5 -- not 6.", "5"),
    ("The answer is 5 (five).", "5"),
    ("The answer is 5, assuming x>0.", "5"),
    ("The answer is 5 (since x > 0).", "5"),
    ("The answer is 5, i.e. 5 apples", "5"),
    ("The answer is 5: five apples.", "5"),
    ("The answer is 5 | check", "5"),
    ("The answer is 5 [1].", "5"),
    ("The answer is 5 :)", "5"),
    ("The answer is not 5 but 6.", "6"),
    ("The answer is 5, or 5.0.", "5"),
    ("The answer is simply the sum, 5.", "5"),
    ("The answer is the following: 5", "5"),
    ("The answer is as follows: 5", "5"),
    ("The answer is easy: 5.", "5"),
    ("The answer is No, because 5 is odd.", "no"),
    ("The answer is 5, which is what we wanted.", "5"),
    ("The answer is 5 but I am not sure", "5"),
    ("The answer is 12, because 3*4=12.", "12"),
    (r"The answer is 5. Check: $\frac{1", "5"),
]

CLAUSES: Rows = [
    (r"Final Answer: The largest possible value is $\frac94$, attained at $x=\frac12$.", "9/4"),
    (r"Final Answer: The maximum value is \(5\), which occurs when \(x=2\).", "5"),
    ("Answer: The maximum is $5$ at $x=2$", "5"),
    ("Answer: The minimum is 4 when x = 1 and y = 2.", "4"),
    ("Answer: The speed is 20 m/s when t = 3.", "20"),
    ("The answer is that the maximum is 5 at x=2.", "5"),
    ("Antwort: Das Maximum ist $5$, erreicht bei $x=2$.", "5"),
    ("Réponse : Le maximum est $5$, atteint en $x=2$.", "5"),
    ("答案：最大值是5，当x=2时取得。", "5"),
    ("Answer: The minimum is $-4$ at $(1, 2)$.", "-4"),
    ("Answer: The maximum is $5$ (attained at $x = 1$).", "5"),
    ("The answer is 5 at x = 2.", "5"),
    ("Resposta: O máximo é $5$, atingido em $x=2$.", "5"),
    ("Ответ: Наибольшее значение равно $5$, достигается при $x=2$.", "5"),
    ("Answer: We get $x = 3$ and $y = 4$.", "x=3,y=4"),
    ("Answer: The zeros are at $x=2$ and $x=3$.", "2,3"),
    ("Ответ: Корни равны $1$ и $2$.", "1,2"),
    ("Answer: $2$ & $3$", "2,3"),
    ("Answer: $2$; $3$", "2,3"),
    ("Answer: E because 5 > 3", "E"),
    ("Resposta: A é correta", "A"),
    ("答えは x=2 または x=3 です。", "2,3"),
    ("Respuesta final x = 2 o x = 3", "2,3"),
    ("Answer: The solutions are $3$ and $-3$.", "3,-3"),
    ("Answer: The roots are $x=1$, $x=2$ and $x=3$", "1,2,3"),
    ("Answer: The roots are 2, 3, and -5.", "2,3,-5"),
    ("Answer: The solution is x=3 and y=4.", "x=3,y=4"),
    ("Réponse : Les solutions sont $3$ et $-3$.", "3,-3"),
    ("Respuesta: Las soluciones son 3 y -3.", "3,-3"),
    (r"Answer: The probability that $x$ is $3$ is $\frac14$.", "1/4"),
    ("Answer: The number of ways when $n$ is 3 is $12$.", "12"),
    ("Answer: The value of $f(2)$ is $3 + 4 = 7$.", "7"),
    ("Answer: The sum of 3 and 4 is 7.", "7"),
    ("Answer: y is 3, so x = 2.", "2"),
    ("Answer: There are $12$ such integers from $1$ to $100$.", "12"),
    ("The answer is that Josh made $70,000.", "70000"),
    ("Answer: Josh has 5 apples left.", "5"),
    ("Answer: Josh has 5.", "5"),
    ("Answer: Evelyn is the oldest.", "Evelyn"),
    ("Answer: Room 5", "Room 5"),
    ("答：小明还剩42个苹果。", "42"),
    ("答え：太郎は42個持っている。", "42"),
    ("답: 철수는 사과 42개가 남았다.", "42"),
    ("答：小明有3万元。", "小明有3万元"),
    ("答案：第3天", "第3天"),
]

CHOICES: Rows = [
    ("Answer: C (12)", "C"),
    ("The answer is B (42).", "B"),
    ("Answer: (C) (12)", "C"),
    ("Answer: twelve (12)", "12"),
    ("The answer is I.", "I"),
    ("The answer is the option B.", "B"),
    ("The answer is letter B.", "B"),
    ("The answer is vitamin C", "vitamin C"),
    ("Answer: all of the above.", "all of the above"),
    ("The answer is both of them.", "both of them"),
    ("The answer is 12 of them.", "12"),
    ("B is the correct answer.", "B"),
    ("(B) is correct.", "B"),
    ("**B** is the correct answer.", "B"),
    ("So, C is correct.", "C"),
    ("Thus C is the right option.", "C"),
    ("We have 3 > 2, so B is the correct answer.", "B"),
    ("B is the correct answer. Thus 42 is our answer.", "42"),
    ("A is not correct. C is correct.", "C"),
    ("Option A is wrong. Option B is the right choice.", "B"),
    ("If A is correct, then 5.", None),
    ("We select A as the origin. Therefore AB = 5.", None),
    ("从A、B、C中选A。所以概率是1/3。", None),
    ("Therefore, C is the correct set. The number of elements is 10.", None),
    ("Hence D is the best approximation, 3.14.", None),
    ("So I would go with option D because 5.5 > 3.", "D"),
    ("Option B is correct. Indeed 2 + 2 = 4.", "B"),
    ("The best choice: B", "B"),
    ("I choose B.", "B"),
    ("I will go with option (D) because 3 > 2.", "D"),
    ("We select C, since 5 > 3.", "C"),
    ("I choose A different approach.", None),
    ("So our final choice is (C).", "C"),
    ("Hence $42$ is the required answer.", "42"),
    ("La respuesta correcta es la B.", "B"),
    ("Die richtige Antwort ist die B.", "B"),
    ("La bonne réponse est l'option C.", "C"),
    ("A resposta é a alternativa D.", "D"),
    ("La risposta corretta è la C.", "C"),
    ("Правильный ответ — вариант B.", "B"),
    ("Đáp án đúng là phương án B.", "B"),
    ("La opción correcta es la C.", "C"),
    ("正确选项是C。", "C"),
    ("My choice is C.", "C"),
    ("Answer choices:\n(A) 5\n(B) 6\nI cannot tell.", None),
    ("Answer: A & C", "A,C"),
    ("Answer: both A and B", "A,B"),
    ("【答案】C", "C"),
    ("【答案】B【解析】因为3>2", "B"),
    ("正解は B です。", "B"),
    ("正解：C", "C"),
    ("所以选C。", "C"),
    ("因此选择（B）。", "B"),
    ("选A的人有3个", None),
]

SEPARATORS: Rows = [
    ("【答案】42", "42"),
    ("【答案】 x=2或x=3", "2,3"),
    ("【答案：42】", "42"),
    ("正解は42です", "42"),
    ("Answer:- 42", "42"),
    ("Answer :- C", "C"),
    ("Ans:- 42", "42"),
    ("Réponse :- 42", "42"),
    ("答案：- 42", "42"),
    ("**Answer:-** 42", "42"),
    ("Answer:-\n42", "42"),
    ("Answer:\n- 42", "42"),
    ("## Answer\n- 42", "42"),
    ("Answer:\n\n- **B**", "B"),
    ("Answer:\n-42", "-42"),
    ("Answer: -42", "-42"),
    ("Answer:-42", "-42"),
    ("The answer is - 7", "-7"),
    ("| **Answer** | **42** |", "42"),
    ("|Answer|42|", "42"),
    ("| Answer | 42 | cm |", "42"),
    ("| Answer | Unit |\n| 5 | cm |", None),
    ("| n | Answer |\n|---|---|\n| 1 | 42 |", None),
]

PARTS: Rows = [
    ("Final Answer:\n1. 5\n2. 6", "5,6"),
    ("Answer:\n1) $x = 5$\n2) $y = 6$", "5,6"),
    ("Answer:\n1. B\n2. C", "B,C"),
    ("Answer:\n1. 42", "42"),
    ("Answer: \n\n  - 42", "42"),
    ("Antwort:\n(1) 5\n(2) 6", "5,6"),
    ("**Answer:**\n**(a)** 5\n**(b)** 6", "5,6"),
    ("**Final Answer:**\n\n$x = 3$\n$y = 4$", "3,4"),
    ("Final answer:\n\\[x = 3\\]\n\\[y = 4\\]", "3,4"),
    ("## Answer\nx = 3\ny = 4", "3,4"),
    ("Answer:\nx = 3 + 4\nx = 7", "7"),
    ("Answer:\n1. Add 3 and 4 to get 7\n2. Double to get 14", None),
    ("**Final Answer**: (a) 5, (b) 6", "5,6"),
    ("Answer: (a) $5$ (b) $6$", "5,6"),
    ("The answer is (1) 5; (2) 6.", "5,6"),
    ("答案：（1）5；（2）6。", "5,6"),
    ("Answer: (1, 2), (3, 4)", "(1,2),(3,4)"),
]

FACTORIALS: Rows = [
    ("The answer is 5! ways.", "120"),
    ("The answer is 10! seconds", "3628800"),
    ("The answer is 3! * 2 = 12.", "12"),
    ("The answer is 4! × 2", "48"),
    ("The answer is 8! - 7! ways.", "35280"),
    ("The answer is 120 = 5!", "120"),
    ("The answer is 6! (which is 720).", "720"),
    ("The answer is 5! Great.", "5"),
    ("Answer: 5!\n\nThat is 120.", "5"),
    ("**The answer is 12!**", "12"),
    ("The answer is 7! so we are done", "7"),
    ("The answer is x = 7! Well done.", "7"),
    ("The final answer is 42! hope it helps", "42"),
    ("The answer is 4! orders", "24"),
    ("The answer is 8! - 7!", "35280"),
]

FORMS: Rows = [
    ("<final>42</final>", "42"),
    ("<final>The answer is 42</final>", "42"),
    ("final_answer(42)", "42"),
    ("final_answer('x = 5')", "5"),
    ("final_answer(result)", None),
    ("He has 5*2=10.\n### 10", "10"),
    ("5\n### 2. Add them", None),
    ("### 3\nThen we add.", None),
    ("#### 18\n\n# 2", "18"),
    ("#### 18\n\n### 2", "18"),
    ("He has two.\n# 2", None),
    ("Ans. 42", "42"),
    ("The answer obtained is 42", "42"),
    ("The answer found above is 42", "42"),
    ("The answer cannot be determined.", "cannot be determined"),
    ("The answer can't be determined from this step.", None),
    ("Answer: does not exist", "does not exist"),
    ("The answer is 42 🎉", "42"),
    ("Answer: 42 🎯 done", "42"),
    ("Answer: ②", "②"),
    ("The answer is negative 5.", "-5"),
    ("The answer is minus $3$.", "-3"),
    ("The answer is\n\\begin{equation}\n10\n\\end{equation}", "10"),
    ("Somit lautet die Antwort 42.", "42"),
    ("Also ist die richtige Antwort B.", "B"),
    ("Daher beträgt die Antwort 42.", "42"),
    ("Daarom is het antwoord 42.", "42"),
    ("Därför är svaret 42.", "42"),
    ("Was ist die Antwort auf 42?", None),
    ("6*7. Итак, ответ 42.", "42"),
    ("Donc, réponse 42", "42"),
    ("See the answer. Answer 5 is wrong", None),
    ("There are 20 questions. Amy answers 80% of them.", None),
    ("Следовательно, ответ 42.", "42"),
    ("La réponse est 1 234,56 €", "1234.56"),
    ("Resposta final: R$ 42,50", "42.5"),
]

CHAINS: Rows = [
    ("Answer: 3*4 = 10+2 = 12", "12"),
    ("The answer is p+q = 5+7 = 12.", "12"),
    ("The answer is $m+n = 256+37 = 293$.", "293"),
    ("Answer: y = 2x+1", "y=2x+1"),
    ("Answer: x = 5", "5"),
    ("Answer: x^2 + y^2 = 4", "x^2+y^2=4"),
    ("The answer is 1,000 + 200 = 1,200", "1200"),
    (r"Answer: \frac{4}{2} = 2", "2"),
    (r"Answer: A = \pi r^2 = 9\pi", r"9\pi"),
    ("#### 3 + 4 = 7", "7"),
    ("Answer: 10 = 2x", "10=2x"),
    ("Answer: $100 - $40 = $60", "60"),
    ("Final answer: $x = 3$ and $y = 4$", "x=3,y=4"),
    ("Final Answer: x=3 and y=4", "x=3,y=4"),
    ("Answer:\n- x = 2\n- y = 3", "x=2,y=3"),
    ("Final Answer\n==========\n12", "12"),
    ("The answer is 12 / 4 = 3.", "3"),
    ("The answer is 3 x 4 = 12", "12"),
    ("The answer is 3 × 4 = 12 apples", "12"),
    ("Answer: total = 3 + 4 = 7", "7"),
    ("Answer: Total cost = $3 + $4 = $7", "7"),
    ("Answer: 7 = 3 + 4", "7"),
    ("Answer: $P = 2(l+w) = 2(3+4) = 14$", "14"),
    (r"Answer: $3 \times 4 = 12$ apples.", "12"),
    (r"The answer is $a_5 = 3 + 4 \cdot 2 = 11$.", "11"),
    ("The answer is 12 because 3*4 = 12", "12"),
    ("The answer is 12: 3*4 = 12", "12"),
    ("The answer is 12 (3*4 = 12).", "12"),
    ("The answer is 12 = 3*4", "12"),
]

HASHES: Rows = [
    ("#### 1. Find x\nx=3\n#### 2. Find y\ny=4\n\nThe answer is 12", "12"),
    ("#### Step 1: add\n3\n\nAnswer: 12", "12"),
    ("#### **2. Double**\nAnswer: 12", "12"),
    ("#### (B)", "B"),
    ("#### yes", "yes"),
    ("#### $42", "42"),
    ("#### **42**", "42"),
    (r"#### $\frac{1}{2}$", r"\frac12"),
    ("#### 42\n\nI hope this helps!", "42"),
    ("#### Final Answer: 12", "12"),
    ("#### Answer\n12", "12"),
    ("####42", "42"),
    ("####\n42", "42"),
    ("#### 42 dollars", "42"),
    ("#### y = 5", "5"),
    ("so #### 42", "42"),
    ("#### -3", "-3"),
    ("#### a + b = 5\nso the answer is 12", "12"),
    ("#### 1) Sum\nThe answer is 12", "12"),
    ("#### Solution\nThe answer is 12", "12"),
    ("#### no solution", "no solution"),
    ("#### 5,000", "5000"),
    ("#### 1 Sum of the values\n\nAnswer: 12", "12"),
    ("#### 42 (forty-two)", "42"),
    ("#### 1/2 + 1/3 = 5/6", "5/6"),
    ("#### 7/8 of the pizza", "7/8"),
    ("#### 12%", "12"),
    ("#### -$12", "-12"),
    ("####  12 .", "12"),
    ("#### 12/5", "12/5"),
    ("#### $12.50", "12.5"),
    ("#### 3. ", "3"),
    ("#### The total is 12", "12"),
    ("#### Total: 12", "12"),
]

LANGUAGES: Rows = [
    ("Respuesta: 18", "18"),
    ("La respuesta es 18.", "18"),
    ("Respuesta final: 18", "18"),
    ("La respuesta correcta es (B)", "B"),
    ("Réponse : 18", "18"),
    ("La réponse finale est 18.", "18"),
    ("Antwort: 18", "18"),
    ("Die Antwort lautet 18.", "18"),
    ("Die endgültige Antwort ist 18 Euro.", "18"),
    ("Ergebnis: 3,5", "3.5"),
    ("答え: 18", "18"),
    ("答えは18です。", "18"),
    ("答案：18", "18"),
    ("最终答案是18。", "18"),
    ("答：18元", "18"),
    ("정답은 18입니다.", "18"),
    ("답: 18", "18"),
    ("উত্তর: ১৮", "18"),
    ("উত্তর হল ১৮।", "18"),
    ("Jibu ni 18", "18"),
    ("Jibu: 18", "18"),
    ("సమాధానం: 18", "18"),
    ("సమాధానం 18", "18"),
    ("คำตอบ: 18", "18"),
    ("คำตอบคือ 18", "18"),
    ("الإجابة: ١٨", "18"),
    ("الإجابة هي 18.", "18"),
    ("الجواب النهائي: 18", "18"),
    ("Đáp án: 18", "18"),
    ("Đáp án là 18.", "18"),
    ("Câu trả lời là 18", "18"),
    ("Ответ: 18", "18"),
    ("Ответ: 18 рублей.", "18"),
    ("Ответ равен 18", "18"),
    ("Risposta: 18", "18"),
    ("La risposta è 18", "18"),
    ("Resposta: 18", "18"),
    ("A resposta é 18.", "18"),
    ("Odpowiedź: 18", "18"),
    ("Odpowiedź to 18.", "18"),
    ("Cevap: 18", "18"),
    ("Svar: 18", "18"),
    ("Antwoord: 18", "18"),
    ("उत्तर: 18", "18"),
    ("उत्तर 18 है।", "18"),
    ("Jawaban: 18", "18"),
    ("Jawabannya adalah 18", "18"),
    ("Vastaus: 18", "18"),
    ("Απάντηση: 18", "18"),
    ("תשובה: 18", "18"),
    ("پاسخ: 18", "18"),
    ("Відповідь: 18", "18"),
    ("**Antwort:** 18 Äpfel", "18"),
    ("## Respuesta\n\n18", "18"),
    ("**答案**\n18", "18"),
    ("答案 (C)", "C"),
    ("Respuesta: C", "C"),
    ("Réponse: \\boxed{}\nRéponse : 1 250", "1250"),
    ("Re\u0301ponse : 18", "18"),
    ("Câu trả lời cuối cùng là 18.", "18"),
    ("İİİ <answer>12</answer>", "12"),
    ("因此，答案是：$12$", "12"),
    ("答案选C", "C"),
    ("故选：C", "C"),
    ("故选B。", "B"),
    ("正确答案是B", "B"),
    ("答えは、12です。", "12"),
    ("したがって、答えは 12 個です", "12"),
    ("따라서 정답은 (B)입니다.", "B"),
    ("Vậy đáp án là 18 quả.", "18"),
    ("Cevap: 18'dir.", "18"),
    ("Jibu ni: 18", "18"),
    ("Respuesta: 18 manzanas", "18"),
    ("Respuesta: 3 millones", "3 millones"),
    ("答案：3万", "3万"),
    ("最后答案为：12", "12"),
    ("答案为 12 元", "12"),
    ("因此，答案是 **12**。", "12"),
    (r"综上所述，答案为$\frac{1}{2}$。", "1/2"),
    ("所以答案是(B)。", "B"),
    ("정답: ③", "③"),
    ("정답: 18개", "18"),
    ("답은 18이다.", "18"),
    ("Le résultat est 18.", "18"),
    ("La réponse est donc 18.", "18"),
    ("Таким образом, ответ: 18.", "18"),
    ("Ответ — 18", "18"),
    ("Правильный ответ: B", "B"),
    ("Jibu sahihi ni 18", "18"),
    ("ดังนั้นคำตอบคือ 18", "18"),
    ("الجواب: 18 تفاحة", "18"),
    ("Kết quả là 18", "18"),
    ("Vậy, đáp số: 18.", "18"),
    ("Sonuç: 18", "18"),
    ("Yanıt: 18", "18"),
    ("La risposta corretta è 18", "18"),
    ("अंतिम उत्तर: 18", "18"),
    ("చివరి సమాధానం: 18", "18"),
    ("চূড়ান্ত উত্তর: 18", "18"),
    ("**Antwort:** $x=2$ oder $x=3$", "2,3"),
    ("Antwort: 3, 4 und 5", "3,4,5"),
    ("Réponse : $x=2$ ou $x=3$", "2,3"),
    ("Réponse : $3$, $4$ et $5$", "3,4,5"),
    ("Réponse : $y$ et $e$", "y,e"),
    ("Respuesta: x = 2 o x = 3", "x=2,x=3"),
    ("Respuesta: $2$ y $-3$", "2,-3"),
    ("Respuesta: A y B", "A,B"),
    ("答案：x=2或x=3", "2,3"),
    ("答案：$3$，$4$", "3,4"),
    ("答案：1，234", "1234"),
    ("答え：3と4", "3,4"),
    ("답: x=2 또는 x=3", "2,3"),
    ("Ответ: x = 3 или x = 4", "3,4"),
    ("उत्तर: 3 और 4", "3,4"),
    ("Cevap: 3 ve 4", "3,4"),
    ("Đáp án: 3 hoặc 4", "3,4"),
    ("คำตอบ: 3 หรือ 4", "3,4"),
    ("الجواب: 3 أو 4", "3,4"),
    ("The answer is $y$ or $e$", "y,e"),
    ("The answer is $5$, 3 of which are red.", "5"),
    ("The answer is 3 i + 4", "3i+4"),
    (r"The answer is \( 1 + 2 i \).", "1+2i"),
    ("The answer is $ 3 e $.", "3e"),
    (r"The answer is $2 i \sqrt{3}$", r"2i\sqrt3"),
    ("The answer is $2 y (y + 1)$", "2y(y+1)"),
    ("Respuesta: (1, 2) y (3, 4)", "(1,2),(3,4)"),
    (r"Respuesta: \(3\) o \(4\)", "3,4"),
]

STATEMENTS: Rows = [
    ("The answer is actually very simple.", None),
    ("The answer is either", None),
    ("The answer is 12 is part", None),
    ("The answer is very easy to find.", None),
    ("The answer is simple: we add.", None),
    ("The answer is as follows", None),
    ("The answer is found by adding 3 and 4.", None),
    ("The answer is in the table.", None),
    ("The answer is not 5.", None),
    ("The answer is correct.", None),
    ("The answer is quite obvious", None),
    ("The answer is 7. The answer is actually very simple.", "7"),
    ("Answer: Let's add 3 and 4.", None),
    ("Answer: First, we add 3 and 4.", None),
    ("Answer: [your answer]", None),
    ("Answer: $Answer", None),
    ("The answer is ___", None),
    ("The answer is based on step 2", None),
    ("The answer is determined by 3 and 5", None),
    ("Answer: 12 is a multiple of 3", None),
    ("Answer: To find the total we add 3 and 4.", None),
    ("The answer is the same.", None),
    ("The answer is that 12 divides it", "12"),
    ("The answer is blue.", "blue"),
    ("The answer is no solution.", "no solution"),
    ("The answer is undefined.", "undefined"),
    ("The answer is Evelyn.", "Evelyn"),
    ("The answer is Yes.", "yes"),
    ("The answer is not possible.", "not possible"),
    ("The answer is either 3 or 4.", "3 or 4"),
    ("La resposta: x = 2 i y = 4", "x = 2, y = 4"),
    ("The answer is 2 i x = 4", "2 i x = 4"),
    ("Answer: She needs 12 eggs.", "12"),
    ("The answer is Monday, because it is.", "Monday"),
    ("Answer: I believe it is B.", "B"),
    ("Answer: I would choose (D).", "D"),
    ("The result of adding is, after rounding,\n\nFinal answer: 8", "8"),
    ("Answer:\n1. First compute 3+4\n2. Then 7", None),
    ("The answer is Rs. 12", "12"),
    ("The answer is between 3 and 5.", None),
    ("The answer is greater than 5.", None),
    ("The answer is 3 times the number of the apples of Tom", None),
    ("Answer: it depends", None),
    ("The answer is that we need 12 eggs.", "12"),
    ("The answer is twenty-four.", "24"),
    (r"The answer is $\text{B}$", "B"),
    (r"The answer is $\frac{1}{2}$ because $3 > 2$.", "1/2"),
    ("The answer is 5 km/h.", "5 km/h"),
    ("The answer is 5%.", "5%"),
    ("The answer is $5.00.", "5"),
    ("The answer is 1.5 hours", "1.5"),
    ("The answer is x=5.", "5"),
    ("The answer is x > 5.", "x>5"),
    ("The answer is all real numbers.", "all real numbers"),
    ("The answer is 2^10.", "2^{10}"),
    (r"The answer is 2\sqrt{3}.", r"2\sqrt3"),
    ("The answer is 2√3 cm.", "2√3"),
    ("The answer is 3 + 4i.", "3+4i"),
    ("The answer is 30°.", "30"),
    ("The answer is 5 dollars and 30 cents.", "5 dollars and 30 cents"),
    ("The answer is 5 → done", "5"),
    ('The answer is "5".', "5"),
    ("The answer is '5'.", "5"),
    ("The answer is “5”.", "5"),
    (r"The answer is 5. \blacksquare", "5"),
    (r"The answer is 5 $\blacksquare$", "5"),
    ("The answer is 5 QED", "5"),
    ("The answer is 5 units.", "5"),
    (r"Remember to use \boxed{}. \boxed{}", None),
    ("The answer is $5 and change.", "5"),
    ("The answer is in fact 5.", "5"),
    ("The answer is, then, 5.", "5"),
    ("The answer is clearly 5", "5"),
    ("The answer is going to be 5.", "5"),
    ("The answer is given below.\n\nAnswer: 5", "5"),
    ("The answer is given below.", None),
    ("The answer is pretty clear", None),
    ("The answer is simple. It is 5.", None),
    ("The answer is still unknown", None),
    ("The answer is here.", None),
    ("The answer is always the same", None),
    ("The answer is no.", "no"),
    ("The answer is yes since 5 > 3", "yes"),
    ("The answer is 5 and it is odd.", "5"),
    ("The answer is 5 unless x = 0", "5"),
    ("The answer is 5 when x = 0", "5"),
    ("The answer is 5 per day", "5"),
    ("The answer is 5 apples left.", "5"),
    ("The answer is 5 years old", "5"),
    (r"answer: \boxed{12", None),
    ("The answer is $x^2 + 3", None),
    (r"The answer is \( x^2", None),
    (r"Answer: \begin{pmatrix} 1 \\ 2", None),
    (r"Answer: 3 \times", None),
    ("ตอบ 18", None),
    ("#### Step 3: 5", None),
]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        *BOXES,
        *THINKING,
        *HEADINGS,
        *FIELDS,
        *REMARKS,
        *CLAUSES,
        *CHOICES,
        *SEPARATORS,
        *PARTS,
        *FACTORIALS,
        *FORMS,
        *CHAINS,
        *HASHES,
        *LANGUAGES,
        *STATEMENTS,
    ],
)
def test_answers_of_each_kind(response: str, expected: str | None) -> None:
    found = extract_answer(response)
    assert found == expected or (found is not None and expected is not None and equivalent(found, expected))


# ----------------------------------------------------------------------------------------------------------- settings


def read(response: str, **values: Any) -> str | None:
    """The answer that the grader of these settings reads."""
    reading = load(AnswersConfig(**values)).read(response, QUESTION)
    assert not isinstance(reading, str) and reading is not None
    return reading.answer


@pytest.mark.parametrize(
    ("response", "counted", "excluded"),
    [
        (r"<think>so \boxed{1} is it", "1", None),
        (r"[THINK]so \boxed{1} is it", "1", None),
        (r"analysisSo \boxed{1} is it", "1", None),
        (r"<|channel|>analysis<|message|>so \boxed{1} is it", "1", None),
        (r"<think>\boxed{1}</think>\boxed{2}<think>or \boxed{3}", "2", "2"),
        (r"The answer is 5. <think>or \boxed{3}", "5", "5"),
        (r"<think>\boxed{1}</think>", "1", "1"),
        (r"\boxed{1}</think> Yes.", "1", "1"),
        (r"so \boxed{1} is it", "1", "1"),
    ],
)
def test_thinking_that_is_never_closed_counts_or_not(response: str, counted: str, excluded: str | None) -> None:
    assert read(response) == counted
    assert read(response, unclosed_thinking="exclude") == excluded
    assert excluded is not None or extract(response, unclosed_thinking="exclude") == Extraction(None, "truncated")
    assert extract("<think>It is 7.", last_number=True, unclosed_thinking="exclude").answer is None


@pytest.mark.parametrize(
    ("words", "response", "expected"),
    [
        (["Solution"], "Solution: 12", "12"),
        (["my verdict"], "So my verdict is **12**.", "12"),
        (["Lösungswert", "Ausgabe"], "Ausgabe 12", "12"),
        (["bilotzea da"], "Bilotzea da 12.", "12"),
        (["verdict"], "The verdict is very simple.", None),
        (["verdict"], "The verdicts: 12 of them.", "12"),
        (["a.c"], "abc: 12", None),
    ],
)
def test_further_announcements_are_words_and_no_patterns(words: list[str], response: str, expected: str | None) -> None:
    assert read(response) is None
    assert read(response, announcements=words) == expected


def test_every_announcement_of_the_table_is_heard() -> None:
    for language in ANNOUNCEMENTS.values():
        for name in language.names.split("|"):
            for form in ("NFC", "NFD"):
                response = unicodedata.normalize(form, f"1 + 17.\n{name.capitalize()}: 18")  # type: ignore[arg-type]
                assert extract_answer(response) == "18", (name, form)
            for verb in filter(None, language.verbs.split("|")):
                assert extract_answer(f"… {name} {verb} 18.") == "18", (name, verb)
        for join in filter(None, language.joins.split("|")):
            assert equivalent(extract_answer(f"{language.names.split('|')[0]}: 18 {join} 20") or "", "18, 20"), join


@pytest.mark.parametrize(
    ("pattern", "response", "expected"),
    [
        (r"(?m)^Output: (.+)$", "Output: 5\nOutput: 6 \nThe answer is 7", "6"),
        (r"<<(.*?)>>", r"<<4>> <<>> \boxed{5}", "4"),
        (r"value=(\d+)", "value=", None),
        (r"答(\d+)", "\ud800答5", "5"),
        (r"=(\d)", "<think>=3</think> =4", "4"),
        (r"=(\d)", "<think>=3</think> none", "3"),
        (r"=(\d+)", "=" + "1" * (MAX_ANSWER_CHARS + 1), None),
    ],
)
def test_a_pattern_alone_decides(pattern: str, response: str, expected: str | None) -> None:
    assert read(response, pattern=pattern, last_number=True) == expected
    reading = MathGrader(pattern=pattern).read(response, QUESTION)
    assert (reading.rule, reading.is_boxed) == ("" if expected is None else "pattern", False)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [("(a", "no regular expression of RE2: missing \\)"), ("a", "has 0 groups"), ("(a)(b)", "has 2 groups"),
     (r"(a)\1", "no regular expression of RE2")],
)  # fmt: skip
def test_a_wrong_pattern_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        AnswersConfig(pattern=pattern)


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)*c", "(?s)(a.*x)|a", "(x+x+)+y"])
def test_no_pattern_hangs(pattern: str) -> None:
    start = time.process_time()
    find = compiled_pattern("(" + pattern.replace("(", "(?:").replace("(?:?s)", "(?s)") + ")")
    extract("a" * 200_000, pattern=find)
    assert time.process_time() - start < 5


# ---------------------------------------------------------------------------------- properties, hostile and long input

LONG_RESPONSES = [
    "Question" + "\n" * 5000, "Q" + " " * 20_000, "the answer to " + " " * 5000, ("answer to" + " " * 61) * 1000,
    "<answer>" * 25_000, "<answer>x" * 22_000, ("word " * 50 + "<answer>") * 800, "answer" + "*" * 50_000,
    "The answer is " * 15_000, "The answer is " + "1 apple and " * 300, "answer to the " * 5000, "<<1=1" * 20_000,
    r"\boxed{1}" + " " * 5000 + r"z\boxed{2}", r"\boxed{1}" + r"\ $" * 5000 + r"(z\boxed{2}",
    "#### \\ " + "." * 50_000 + "=z",
    ("The answer is the x = 1" + ", x = 1" * 250 + " zz zz zz zz\n") * 40,
    ("The answer is the sum is 5" + " is 5 for" * 200 + "=\n") * 40,
    ("Answer: (a) 5" + ", (b) 6" * 250 + "\n") * 40, r"\boxed{5}" + "(1) " * 20_000 + r"\boxed{6}",
    r"x = \boxed{5} " * 5000,
    "(1) \\boxed5 (2) " * 5000, ("Answer:\n" + "x = 1\n" * 300) * 40, "lautet die Antwort " * 5000,
    '"answer": "' + "\\n" * 9000,
]  # fmt: skip


@pytest.mark.parametrize("response", LONG_RESPONSES, ids=range(len(LONG_RESPONSES)))
def test_long_responses_are_read_in_reasonable_time(response: str) -> None:
    start = time.process_time()
    extract(response, last_number=True)
    assert time.process_time() - start < 1


FRAGMENTS = [
    *"aA1x ()[]{}$*_=,.;:!-—#|<>│┌─┐\n\t\x08\x0cİé답", "the answer is ", "answer: ", "Antwort ", "답은 ", "12元",
    r"\boxed{", r"\boxed ", r"\boxed{1} and ", r"\boxed{1}. The other root is ", "(a) ", "#### ", "┌─┐\n│",
    "<think>", "</think>", "[THINK]", "<|channel|>final", "assistantfinal", r"\(", r"\[", r"\frac{1}", r"\text{",
    r"\approx ", "<b>", "<answer>", "</answer>", "twelve (12) ", " of the ", ", in total", "Question: ",
    "is the answer ", "answer, a, ", "answer (", "<<1", '"answer": "', '"answer": [', "\\\"", "', ",
    " und ", "\n1. ", "；(2) ", "x = ",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_any_repetition_is_read_in_linear_time(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(5):
        block = "".join(rng.choices(FRAGMENTS, k=rng.randint(1, 4)))
        head, tail = rng.choice(FRAGMENTS) * rng.choice([0, 1, 200]), rng.choice(FRAGMENTS) * rng.choice([0, 1, 50])
        response = head + block * (20_000 // len(block)) + tail
        start = time.process_time()
        extract(response, last_number=True)
        assert time.process_time() - start < 1, (head[:20], block, tail[:20])


@given(
    st.lists(
        st.one_of(
            st.text(max_size=5),
            st.sampled_from(FRAGMENTS),
            st.sampled_from([r"\boxed{", "}", "#### ", "The answer is ", "\n", "$", "</think>"]),
        )
    )
)
def test_extraction_never_raises_and_never_gives_an_empty_answer(pieces: list[str]) -> None:
    response = "".join(pieces)
    for last_number in (False, True):
        found = extract(response, last_number=last_number)
        assert (found.answer is None) == (found.reason is not None)
        assert found.answer is None or 0 < len(found.answer.strip()) <= MAX_ANSWER_CHARS
        assert found.answer is not None or not (found.boxed or found.explicit)


# ------------------------------------------------------------------------------------------------------- labelled data


def test_labelled_responses() -> None:
    right = total = 0
    for row in labelled("extraction"):
        expected = row["expected_answer"]
        found = extract(row["response"], last_number=not row["explicit"]).answer
        if expected is None:
            assert found is None, row
        right += found == expected or (found is not None and equivalent(found, expected))
        total += 1
    assert right >= 0.95 * total


def test_reported_responses() -> None:
    """Responses of public bug reports. Firm ones follow from no convention."""
    rows = [row for row in labelled("reports") if row["kind"] == "extract" and not row["policy"]]
    right = 0
    for row in rows:
        found = extract(row["response"], last_number=bool(row.get("last_number"))).answer
        expected = row["expected"]
        right += found == expected or (found is not None and expected is not None and equivalent(expected, found))
    assert right >= 0.97 * len(rows)
