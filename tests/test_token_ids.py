"""What is trained is what was sampled: the token ids of responses, from the engine to the training's batches."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounds import graded, write_samples
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from east_ray import weighting
from east_ray.config import PromptConfig, SamplesConfig, TrainingConfig
from east_ray.questions.prompts import end_of_turn, load_tokenizer, response_ids, tokenize
from east_ray.records import CHOSEN, EXAMPLES, JUDGED, RESPONSE, SAMPLES
from east_ray.sampling.given import write_samples as take_samples
from east_ray.selection import SelectionRules, judge_samples
from east_ray.storage import Folder, Stages, locate
from east_ray.training import objectives
from east_ray.training.dataset import Training, tokenize_example, tokenized_examples

MODEL = str(Path(__file__).parent.parent / "jobs" / "quickstart" / "model")
TOKENIZER = load_tokenizer(MODEL)
PROMPT = PromptConfig()
(END,) = end_of_turn(TOKENIZER, PROMPT)
#: What the shipped tokenizer would merge, in one token for each byte: an engine may sample it so.
TEXT = "It is 12 apples."


def by_bytes(text: str) -> list[int]:
    """Ids of a text in tokens of one byte."""
    spelled = TOKENIZER.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [TOKENIZER.convert_tokens_to_ids(letter) for piece, _ in spelled for letter in piece]


def special(token: str) -> int:
    return int(TOKENIZER.convert_tokens_to_ids(token))


# ----------------------------------------------------------------------------------------------------- one response


def test_sampled_ids_are_trained_on_and_not_those_of_the_text() -> None:
    sampled = by_bytes(TEXT)
    assert len(sampled) > len(tokenize(TOKENIZER, TEXT)), "the tokenizer merges nothing here"
    assert response_ids(TOKENIZER, TEXT, [END], [*sampled, END]) == [*sampled, END]
    assert response_ids(TOKENIZER, TEXT, [], sampled) == sampled
    assert response_ids(TOKENIZER, TEXT, [END]) == [*tokenize(TOKENIZER, TEXT), END]


def test_a_special_token_that_the_model_spelled_is_no_special_token() -> None:
    """Tokenizing the text would make the end of the turn of it, in the middle of the response."""
    text = "I write <|end|> here."
    assert tokenize(TOKENIZER, text).count(END) == 1
    assert response_ids(TOKENIZER, text, [END], [*by_bytes(text), END]).count(END) == 1


@pytest.mark.parametrize(
    ("sampled", "is_cut", "trained"),
    [
        ([END], False, [END]),  # ended by the end-of-turn token
        ([special("<|pad|>")], False, [special("<|pad|>")]),  # by another token that the engine stops at
        ([], False, [END]),  # by a stop string, which the engine left out itself
        (by_bytes("\n\nQ:"), False, [END]),  # by a stop string, which its ids still hold
        ([*by_bytes("\n\nQ:"), END], False, [END]),
        ([], True, []),
        (by_bytes(" More"), True, []),
        ([special("<|user|>")], True, [special("<|user|>")]),  # cut right after a token that the text does not show
    ],
)
def test_a_response_ends_once_whatever_ended_it(sampled: list[int], is_cut: bool, trained: list[int]) -> None:
    body = by_bytes(TEXT)
    assert response_ids(TOKENIZER, TEXT, [] if is_cut else [END], body + sampled) == body + trained


def test_a_stop_string_that_begins_inside_a_token_leaves_the_text_to_be_tokenized() -> None:
    whole = tokenize(TOKENIZER, "It is 12 apples")
    assert TOKENIZER.decode(whole[-1:]) == " apples", "the last token is to be split"
    assert response_ids(TOKENIZER, "It is 12 app", [END], whole) == [*tokenize(TOKENIZER, "It is 12 app"), END]
    assert response_ids(TOKENIZER, "It is 12", [END], whole) == [*whole[:-1], END]


def test_ids_of_another_tokenizer_are_not_used() -> None:
    """As those of another model's samples, or of an endpoint that is not the model of the run."""
    other = load_tokenizer(MODEL)
    vocabulary = other.get_vocab()
    shifted = [1 + (token + 7) % (len(vocabulary) - 1) for token in by_bytes(TEXT)]
    assert response_ids(TOKENIZER, TEXT, [END], shifted) == [*tokenize(TOKENIZER, TEXT), END]
    too_large = [10**6 + token for token in by_bytes(TEXT)]
    assert response_ids(TOKENIZER, TEXT, [END], too_large) == [*tokenize(TOKENIZER, TEXT), END]


def test_a_space_that_the_tokenizer_drops_and_half_a_character_are_no_other_text() -> None:
    pieces = ["▁", "▁It", "▁is", "▁", "1", "2", "<0xC3>", "<0xA9>", "I", "t", "i", "s"]
    inner = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [], byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)
    sampled = [1, 2, 3, 4]
    assert tokenizer.decode(sampled) == "It is 1"
    # An engine decodes behind the prompt, where the space belongs to the text.
    assert response_ids(tokenizer, " It is 1", [], sampled) == sampled != tokenize(tokenizer, " It is 1")
    cut = [*sampled, 6]
    assert tokenizer.decode(cut) == "It is 1\ufffd"
    assert response_ids(tokenizer, "It is 1", [], cut) == cut


@given(st.text(max_size=30), st.lists(st.integers(1, 20), max_size=30), st.booleans())
def test_any_split_of_a_text_into_tokens_is_kept(text: str, sizes: list[int], is_cut: bool) -> None:
    """Each piece is tokenized alone, so tokens end where the tokenizer would not have ended them."""
    encoded, sampled, begin = text.encode(errors="ignore").decode(), list[int](), 0
    for size in [*sizes, len(encoded)]:
        sampled += tokenize(TOKENIZER, encoded[begin : begin + size])
        begin += size
    if any(token in TOKENIZER.all_special_ids for token in sampled):
        return  # a text that spells a special token, which decodes to nothing
    end = [] if is_cut else [END]
    assert response_ids(TOKENIZER, encoded, end, [*sampled, *end]) == [*sampled, *end]


# ------------------------------------------------------------------------------------- from samples/ to the batches


def sampled_row(number: int, **changes: Any) -> dict[str, Any]:
    """Three correct responses and one wrong one, each byte for byte."""
    texts = [f"So \\boxed{{{number}}}{mark}" for mark in (".", "!", ";")] + ["So \\boxed{7}."]
    responses = [
        {"text": text, "num_tokens": 1, "finish_reason": "stop", "token_ids": [*by_bytes(text), END]} for text in texts
    ]
    row = {"question_id": f"q{number}", "question": f"What is {number}?", "reference_answer": str(number)}
    return dict.fromkeys(SAMPLES.names) | row | {"model": "base", "responses": responses} | changes


def test_the_ids_of_what_is_chosen_travel_to_the_batches(tmp_path: Path, local_ray: None) -> None:
    """Those of the first question do; those of the second are of another tokenizer, and the third has none."""
    rows, folder = [sampled_row(number) for number in range(3)], Folder(*locate(str(tmp_path)))
    for known, unknown in zip(rows[1]["responses"], rows[2]["responses"], strict=True):
        known["token_ids"], unknown["token_ids"] = [token + 1 for token in known["token_ids"]], None
    write_samples(folder, [rows[:2], rows[2:]])
    rules = SelectionRules(needs_rejected=True, responses_per_question_trained=2)
    training = (rules, weighting.entropy_signal, folder / "judged")
    list(judge_samples(folder / "samples", folder / "answers", [training]))
    examples = [row | {"weight": 1.0} for row in (folder / "judged").read(JUDGED).to_pylist()]
    (folder / "examples").replace(pa.Table.from_pylist(examples, EXAMPLES))
    settings = TrainingConfig(objective="kto", epochs=1, deepspeed={"zero_stage": 0})  # type: ignore[arg-type]
    places = {name: folder / name for name in ("examples", "target", "references")}
    wanted = Training(
        name="one", model=MODEL, settings=settings, objective=objectives.load(settings), prompt=PROMPT, seed=0, **places
    )
    (dataset,), (counted,) = tokenized_examples([wanted])
    tokenized = {row["question_id"]: row for row in dataset.take_all()}
    assert sorted(tokenized) == ["q0", "q0#1", "q1", "q1#1", "q2", "q2#1"]
    by_id = {row["question_id"]: row for row in examples}
    for name, found in tokenized.items():
        row, following = by_id[name[:2]], by_id[f"q{(int(name[1]) + 1) % 3}"]
        texts = {"chosen": row["more_chosen"][0]["text"] if "#" in name else row["chosen"],
                 "rejected": row["rejected"], "mismatched": following["chosen"]}  # fmt: skip
        for response, text in texts.items():
            has_ids = (following if response == "mismatched" else row)["question_id"] == "q0"
            assert found[response] == [*(by_bytes(text) if has_ids else tokenize(TOKENIZER, text)), END], name
    assert counted.num_retokenized == 4, "the two of q1, and the two of q0 beside a response to q1"


def test_samples_without_the_column_are_read_as_before(tmp_path: Path, local_ray: None) -> None:
    """Those of an older run, beside newer ones in the same folder."""
    folder = Folder(*locate(str(tmp_path)))
    write_samples(folder, [[sampled_row(1)], [sampled_row(2)]])
    without = pa.struct([field for field in RESPONSE if field.name != "token_ids"])
    place = SAMPLES.get_field_index("responses")
    old = SAMPLES.set(place, SAMPLES.field("responses").with_type(pa.list_(without)))
    older = folder / "samples" / "part-1.parquet"
    rows = pq.read_table(older.path).to_pylist()
    pq.write_table(pa.Table.from_pylist(rows, old), older.path)
    read = (folder / "samples").read(SAMPLES).to_pylist()
    assert [row["responses"][0]["token_ids"] is None for row in read] == [False, True]
    training = (SelectionRules(needs_rejected=True), weighting.entropy_signal, folder / "judged")
    list(judge_samples(folder / "samples", folder / "answers", [training]))
    judged = {row["question_id"]: row for row in (folder / "judged").read(JUDGED).to_pylist()}
    assert judged["q1"]["chosen_token_ids"] is not None and judged["q1"]["rejected_token_ids"] is not None
    assert judged["q2"]["chosen"] and judged["q2"]["chosen_token_ids"] is judged["q2"]["rejected_token_ids"] is None


def test_an_example_of_an_older_run_is_tokenized_from_its_text() -> None:
    row = {"question": "1 + 1?", "chosen": TEXT, "chosen_finish_reason": "stop"}
    assert tokenize_example(row, TOKENIZER, PROMPT)["chosen"] == [*tokenize(TOKENIZER, TEXT), END]


def test_the_samples_of_another_run_are_taken_without_their_ids(tmp_path: Path, local_ray: None) -> None:
    """Its model may have another tokenizer, and the ids would be most of what is read."""
    source, stages = Folder(*locate(str(tmp_path / "source"))), Stages(Folder(*locate(str(tmp_path / "round_0"))))
    source.write_part(pa.Table.from_pylist([sampled_row(1)], SAMPLES))
    list(take_samples(SamplesConfig(path=source.path), stages))
    (taken,) = (stages / "samples").read(SAMPLES).to_pylist()
    assert [response["text"] for response in taken["responses"]] == [
        response["text"] for response in sampled_row(1)["responses"]
    ]
    assert {response["token_ids"] for response in taken["responses"]} == {None}


def test_grading_does_not_read_the_ids(tmp_path: Path, local_ray: None) -> None:
    """The column's pages are destroyed, and the answers are read all the same."""
    from east_ray.answers.graders import MathGrader
    from east_ray.answers.stage import write_answers

    folder = Folder(*locate(str(tmp_path)))
    write_samples(folder, [[sampled_row(number) for number in range(4)]])
    (part,) = (folder / "samples").parts()
    metadata = pq.read_metadata(part).row_group(0)
    columns = [metadata.column(number) for number in range(metadata.num_columns)]
    (ids,) = (one for one in columns if "token_ids" in one.path_in_schema)
    begin = ids.dictionary_page_offset or ids.data_page_offset
    content = bytearray(Path(part).read_bytes())
    content[begin : begin + ids.total_compressed_size] = b"\xff" * ids.total_compressed_size
    Path(part).write_bytes(content)
    with pytest.raises(OSError):
        (folder / "samples").read(SAMPLES)
    (counts,) = list(write_answers(folder / "samples", folder / "graded", MathGrader()))
    assert counts["num_responses"] == 16 and counts["num_answerless"] == 0


def test_schemas_have_the_ids_of_every_response_that_is_trained_on() -> None:
    ids = pa.list_(pa.int32())
    found = [RESPONSE.field("token_ids"), CHOSEN.field("token_ids")]
    found += [EXAMPLES.field(f"{name}_token_ids") for name in ("chosen", "rejected")]
    assert all(field.type == ids and field.nullable for field in found)
    assert graded(sampled_row(3)).correct_cluster is not None
