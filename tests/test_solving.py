"""What the responses to a question say together: clusters, entropy, the majority answer, and when it is withheld."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.answers import graders
from east_ray.answers.grading import clustered, measured
from east_ray.config import AnswersConfig
from east_ray.records import Question
from east_ray.serving.solving import ServedResponse, Solution, Solving

TEXTS = st.sampled_from(
    [r"\boxed{1/2}", r"\boxed{0.5}", r"\boxed{3}", "the answer is 3", r"\boxed{x+1}", "no idea", ""]
)
RULES = st.builds(AnswersConfig, no_answer=st.sampled_from(["cluster", "exclude"]), last_number=st.booleans())


def solving(rules: AnswersConfig | None = None, abstain_above: float | None = None) -> Solving:
    rules = rules or AnswersConfig()
    question = Question("", "?")
    return Solving(question, graders.load(rules), no_answer=rules.no_answer, abstain_above=abstain_above)


def solved(*texts: str, rules: AnswersConfig | None = None, abstain_above: float | None = None) -> Solution:
    found = solving(rules, abstain_above)
    found.add([ServedResponse(text, num_tokens=len(text)) for text in texts])
    return found.solution()


def test_equal_answers_share_a_cluster_and_the_largest_one_answers() -> None:
    found = solved(r"\boxed{3}", r"half: \boxed{0.5}", "no idea", r"\boxed{1/2}")
    assert (found.answer, found.share) == ("0.5", 0.5)
    assert found.entropy == pytest.approx(1.5 * math.log(2))  # shares 1/2, 1/4, 1/4
    by_answer = {one.answer: (one.num_responses, one.response) for one in found.clusters}
    assert by_answer == {"0.5": (2, r"half: \boxed{0.5}"), "3": (1, r"\boxed{3}"), None: (1, "no idea")}
    assert list(by_answer) == ["0.5", "3", None]
    assert (found.num_responses, found.num_answerless) == (4, 1)


def test_responses_without_an_answer_never_win() -> None:
    found = solved("no idea", "nor I", "me neither", r"\boxed{7}")
    assert (found.answer, found.share) == ("7", 0.25)
    nothing = solved("no idea", "nor I")
    assert (nothing.answer, nothing.share, nothing.abstained) == (None, 0, False)


def test_equal_clusters_are_decided_by_who_came_first() -> None:
    assert solved(r"\boxed{2}", r"\boxed{1}").answer == "2"
    assert solved(r"\boxed{1}", r"\boxed{2}").answer == "1"


def test_an_uncertain_answer_is_withheld_and_a_certain_one_is_not() -> None:
    texts = (r"\boxed{1}", r"\boxed{1}", r"\boxed{2}")
    bound = solved(*texts).entropy
    assert not solved(*texts, abstain_above=bound).abstained
    withheld = solved(*texts, abstain_above=bound - 1e-9)
    assert (withheld.answer, withheld.abstained, withheld.share) == (None, True, 2 / 3)
    assert withheld.clusters == solved(*texts).clusters
    assert solved(r"\boxed{1}", abstain_above=0).answer == "1"


def test_tokens_and_truncated_responses_are_counted() -> None:
    found = solving()
    found.add([ServedResponse("", 3, is_truncated=True), ServedResponse(r"\boxed{1}", 4)])
    assert (found.solution().num_tokens, found.solution().num_truncated) == (7, 1)


def test_no_responses_are_no_answer() -> None:
    assert solved() == Solution(None, 0.0, 0.0, False, 0, 0, 0, 0, [])


@given(st.lists(TEXTS, min_size=1, max_size=12), RULES)
def test_clusters_and_entropy_are_those_of_training(texts: list[str], rules: AnswersConfig) -> None:
    graded = clustered(texts, Question("q", "?", reference_answer="3"), graders.load(rules))
    found = solved(*texts, rules=rules)
    assert found.entropy == measured("q", graded.clusters, rules.no_answer).entropy
    assert [(one.answer, one.num_responses) for one in found.clusters] == [
        (one.answer, one.num_responses) for one in graded.clusters
    ]


@given(st.lists(TEXTS, max_size=12), RULES, st.none() | st.floats(0, 3))
def test_shares_add_up_and_an_abstention_is_an_entropy_above_the_bound(
    texts: list[str], rules: AnswersConfig, bound: float | None
) -> None:
    found = solved(*texts, rules=rules, abstain_above=bound)
    assert sum(one.num_responses for one in found.clusters) == len(texts)
    assert math.fsum(one.share for one in found.clusters) == pytest.approx(float(bool(texts)))
    assert 0 <= found.entropy <= math.log(max(1, len(found.clusters))) + 1e-12
    assert found.abstained == (bound is not None and found.entropy > bound and found.num_answerless < len(texts))
    assert (found.answer is None) == (found.abstained or found.num_answerless == len(texts))
