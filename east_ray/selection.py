"""Clusters of one question's responses -> a training example, or the reason why there is none.

Pure functions on one row of ``samples/``. What they give depends on the row, the settings and the run's seed alone,
never on other questions, their order or the machine.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from east_ray import answers, weighting
from east_ray.records import Reason


@dataclass(frozen=True)
class SelectionRules:
    """The settings that decide what a sampled question becomes; see the fields of the same names in config.py."""

    objective: Literal["sft", "dpo", "kto"]
    signal: weighting.Signal
    all_correct: Literal["keep", "drop"]
    require_boxed: bool
    responses_per_question_trained: int
    equivalence: Literal["math", "string"]
    no_answer: Literal["cluster", "exclude"]
    last_number: bool
    seed: int


def judge(sample: Mapping[str, Any], rules: SelectionRules) -> dict[str, Any]:
    """A row of ``samples/`` -> a row of records.JUDGED: an example without its weight, or ``reason`` why not.

    Correct means: in the cluster of the reference answer. Rates are shares of all responses, those without an answer
    included; with ``no_answer: exclude`` only the entropy leaves them out. A response without an answer is never
    correct and never the "commonest wrong answer".
    """
    responses: Sequence[Mapping[str, Any]] = sample["responses"]
    reference: str | None = sample["reference_answer"]
    texts = [response["text"] for response in responses]
    by_text = {text: answers.extract(text, last_number=rules.last_number) for text in dict.fromkeys(texts)}
    extractions = [by_text[text] for text in texts]
    found = [extraction.answer for extraction in extractions]

    parsable = answers.is_parsable_reference(reference)
    # The reference goes first, so that its cluster has number 0 and holds exactly the correct responses.
    numbers = answers.cluster([reference if parsable else None, *found], equivalence=rules.equivalence)[1:]
    members: dict[int, list[int]] = {}
    for index, number in enumerate(numbers):
        members.setdefault(number, []).append(index)
    groups = sorted(members.values(), key=lambda group: (-len(group), group[0]))

    def is_correct(group: Sequence[int]) -> bool:
        return parsable and numbers[group[0]] == 0

    answered = [group for group in groups if found[group[0]] is not None]
    counted = groups if rules.no_answer == "cluster" else answered
    correct = next((group for group in groups if is_correct(group)), [])
    wrong = next((group for group in answered if not is_correct(group)), [])  # the largest one
    num_responses = len(responses)
    entropy = weighting.entropy([len(group) for group in counted])
    pass_rate = len(correct) / num_responses
    rejected_rate = len(wrong) / num_responses
    boxed = [index for index in correct if extractions[index].boxed]

    # The choice among equals is random, but fixed by the seed and the question's name.
    rng = random.Random(f"{rules.seed}:{sample['question_id']}")
    choosable = _choosable(boxed if boxed or rules.require_boxed else correct, responses)
    chosen = rng.choice(choosable) if choosable else None
    rejected = rng.choice(_choosable(wrong, responses)) if wrong else None
    others = [response for response in choosable if response is not chosen]
    more = rng.sample(others, min(len(others), rules.responses_per_question_trained - 1))
    return {
        "question_id": sample["question_id"],
        "question": sample["question"],
        "reference_answer": reference,
        "num_responses": num_responses,
        "num_truncated": sum(response["finish_reason"] == "length" for response in responses),
        "entropy": entropy,
        "pass_rate": pass_rate,
        "rejected_rate": rejected_rate,
        "clusters": [
            {"answer": found[group[0]], "num_responses": len(group), "is_correct": is_correct(group)}
            for group in groups
        ],
        "signal": weighting.signal(rules.signal, entropy=entropy, pass_rate=pass_rate, rejected_rate=rejected_rate),
        "chosen": chosen and chosen["text"],
        "chosen_finish_reason": chosen and chosen["finish_reason"],
        "more_chosen": [{"text": one["text"], "finish_reason": one["finish_reason"]} for one in more]
        if rules.responses_per_question_trained > 1
        else None,
        "rejected": rejected and rejected["text"],
        "rejected_finish_reason": rejected and rejected["finish_reason"],
        "reason": reason_to_discard(
            rules, parsable, bool(correct), chosen is not None, bool(wrong), len(correct) == num_responses
        ),
    }


def reason_to_discard(
    rules: SelectionRules, parsable: bool, any_correct: bool, any_chosen: bool, any_wrong: bool, all_correct: bool
) -> Reason | None:
    """Why these rules drop a question of whose responses this is true, or None; `any_chosen`: one can be trained on."""
    if not parsable:
        return Reason.UNPARSABLE_REFERENCE
    if not any_correct:
        return Reason.ALL_WRONG
    if not any_chosen:
        return Reason.NO_BOXED_CORRECT
    if rules.objective != "sft" and not any_wrong:
        return Reason.NO_WRONG_ANSWER
    if all_correct and rules.all_correct == "drop":
        return Reason.ALL_CORRECT
    return None


def _choosable(group: Sequence[int], responses: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The responses of a group that ended by themselves; all of it if none did."""
    ended = [responses[index] for index in group if responses[index]["finish_reason"] == "stop"]
    return ended or [responses[index] for index in group]
