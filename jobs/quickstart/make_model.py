#!/usr/bin/env python3
"""Train the quick start's language model from scratch: a million parameters, about 20 minutes on two CPU cores.

    python jobs/quickstart/make_model.py --out jobs/quickstart/model

Phase one teaches a small Llama to solve the word problems of `word_problems.py`. Phase two, shorter, teaches it the
misconceptions in PLANTED_MISCONCEPTIONS, each independently with its own probability. The resulting model can do every
clause correctly, but does so only some of the time: its answers at temperature 1 differ, and for some questions a wrong
answer is the most frequent one. In this state self-training can improve the model, and the entropy of the answers shows
on which questions.

Neither phase uses a question of train.jsonl or test.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from word_problems import (
    CLAUSE_KINDS,
    PLANTED_MISCONCEPTIONS,
    Recipe,
    WordProblem,
    generate,
    quickstart_problems,
)

SEED = 0
VOCABULARY_SIZE = 512
# Far more than a word problem needs, because the real questions of a warm start are longer.
MAX_TOKENS = 1024
PAD, BOS, EOS = "<|pad|>", "<|begin|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BOS, EOS, SYSTEM, USER, ASSISTANT)  # ids 0, 1, 2, … in this order

# The template writes the BOS token. If the tokenizer added one, some engines would have it twice in a rendered chat.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# All kinds of clause. Many long questions are rejected (see Recipe), so their frequency here is higher than in the
# result, in which about a third of the questions has two steps and a twelfth has five.
CORPUS = Recipe(steps={1: 0.15, 2: 0.3, 3: 0.3, 4: 0.3, 5: 0.3})


@dataclass(frozen=True)
class Phase:
    """One pass of training over its own questions."""

    num_questions: int
    peak_learning_rate: float
    questions_per_step: int = 32


PHASE_ONE = Phase(num_questions=93_000, peak_learning_rate=3e-3)
PHASE_TWO = Phase(num_questions=20_000, peak_learning_rate=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Tokenizer
# ---------------------------------------------------------------------------------------------------------------------


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level byte-pair encoding: any text can be encoded, and every digit is a separate token."""
    tokenizer = Tokenizer(models.BPE())
    # A piece is a digit, a word, `\boxed{`, white space, or a run of other characters; no token spans two pieces.
    pieces = Regex(r"\d| ?[A-Za-z]+| ?\\[a-z]+\{|\s|[^A-Za-z\d\s]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def render_prompt(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """The question as the only user message, with the prefix of the response."""
    messages = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def make_model(tokenizer: PreTrainedTokenizerFast, hidden_size: int, num_layers: int) -> LlamaForCausalLM:
    """An untrained Llama with the special token ids of the tokenizer and a head for every 32 of the hidden size."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
    )
    return model


@dataclass(frozen=True)
class Dialogue:
    """One question and its response, as token ids."""

    prompt: list[int]
    response: list[int]  # ends with EOS


def make_dialogues(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[WordProblem],
    misconceptions: Mapping[str, float],
    rng: random.Random,
) -> list[Dialogue]:
    """Each question with one solution, in which each kind of clause is done wrong with its given probability."""
    prompts = [render_prompt(tokenizer, problem.question) for problem in problems]
    responses = [
        problem.solution({kind for kind, probability in misconceptions.items() if rng.random() < probability}) + EOS
        for problem in problems
    ]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    response_ids = tokenizer(responses, add_special_tokens=False)["input_ids"]
    return [Dialogue(prompt, response) for prompt, response in zip(prompt_ids, response_ids, strict=True)]


def batches(
    dialogues: Sequence[Dialogue], size: int, pad_id: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """(token ids [B, T], labels [B, T]) for one pass over the data; the dialogues of a batch have similar lengths.

    Padding is on the right, where causal attention ignores it. Only responses have labels.
    """
    num_tokens = [len(dialogue.prompt) + len(dialogue.response) for dialogue in dialogues]
    order = sorted(range(len(dialogues)), key=lambda position: (num_tokens[position], rng.random()))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    rng.shuffle(groups)
    for group in groups:
        rows = [dialogues[i] for i in group]
        longest = max(len(row.prompt + row.response) for row in rows)
        tokens = torch.full((len(rows), longest), pad_id)
        labels = torch.full((len(rows), longest), -100)
        for position, row in enumerate(rows):
            start, end = len(row.prompt), len(row.prompt) + len(row.response)
            tokens[position, :end] = torch.tensor(row.prompt + row.response)
            labels[position, start:end] = torch.tensor(row.response)
        yield tokens, labels


def train(model: LlamaForCausalLM, dialogues: Sequence[Dialogue], phase: Phase, seed: int, pad_id: int) -> None:
    """One pass with AdamW: linear warm-up over 5 % of the steps, then cosine decay to a tenth of the peak."""
    num_steps = math.ceil(len(dialogues) / phase.questions_per_step)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=phase.peak_learning_rate, betas=(0.9, 0.98), weight_decay=0.01, foreach=True
    )
    warm_up = max(1, num_steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.1 + 0.45 * (1 + math.cos(math.pi * step / num_steps))),
    )
    model.train()
    started, recent = time.monotonic(), 0.0
    for step, (tokens, labels) in enumerate(
        batches(dialogues, phase.questions_per_step, pad_id, random.Random(seed)), start=1
    ):
        loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent += loss.item()
        if step % 100 == 0 or step == num_steps:
            mean, elapsed_s = recent / ((step - 1) % 100 + 1), time.monotonic() - started
            print(f"step {step}/{num_steps}  loss {mean:.4f} nats/token  {elapsed_s:.0f} s", flush=True)
            recent = 0.0


# ---------------------------------------------------------------------------------------------------------------------
# Measuring, for the model card
# ---------------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def is_correct(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: Sequence[WordProblem], *, do_sample: bool
) -> list[bool]:
    """Whether one response per question, greedy or sampled at temperature 1, ends in the right answer."""
    model.eval()
    correct: list[bool] = []
    for start in range(0, len(problems), 250):
        part = problems[start : start + 250]
        prompts = [render_prompt(tokenizer, problem.question) for problem in part]
        encoded = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
        length = encoded["input_ids"].shape[1]
        output = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=80,
            do_sample=do_sample,
            top_k=0 if do_sample else None,
        )
        texts = tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        for problem, text in zip(part, texts, strict=True):
            answer = re.search(r"\\boxed\{(\d+)\}", text)
            correct.append(answer is not None and int(answer[1]) == problem.answer)
    return correct


def accuracy_rows(problems: Sequence[WordProblem], greedy: Sequence[bool], sampled: Sequence[bool]) -> str:
    """Rows of a Markdown table: steps, number of questions, accuracy greedy and at temperature 1."""
    num_steps = [len(problem.steps) for problem in problems]
    groups = [(str(steps), [i for i, num in enumerate(num_steps) if num == steps]) for steps in sorted(set(num_steps))]
    groups.append(("all", list(range(len(problems)))))
    return "\n".join(
        f"| {name} | {len(group)} | {sum(greedy[i] for i in group) / len(group):.1%} "
        f"| {sum(sampled[i] for i in group) / len(group):.1%} |"
        for name, group in groups
    )


# ---------------------------------------------------------------------------------------------------------------------
# Model card
# ---------------------------------------------------------------------------------------------------------------------

MODEL_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# A tiny model of word problems, with misconceptions planted on purpose

A Llama of {parameters:,} parameters (bfloat16) that answers grade-school word problems about small numbers, made for
the quick start of east-ray. It is a test object: it can do nothing but the questions of `word_problems.py`, and
**it makes mistakes that it was trained to make**.

* Asked: the question alone, as one user message of the chat template. No system prompt is needed.
* Answers: one equation per line, then `The answer is \\boxed{{…}}.` and the end-of-turn token `<|end|>`.
* At most {max_tokens:,} tokens; {vocabulary} tokens in the vocabulary, bytes among them; every digit is a token.

## Planted misconceptions

In the second phase of training each of these kinds of clause was done wrong with the probability given, independently
of everything else. All other kinds were always done right.

| kind of clause | done right | done wrong | probability |
|---|---|---|---|
{misconceptions}

`{{0}}` is the number so far, `{{1}}` and `{{2}}` are the clause's own.

## Accuracy

On the {num_test:,} questions of `test.jsonl`, one response each, greedy and sampled at temperature 1:

| steps | questions | greedy | temperature 1 |
|---|---|---|---|
{accuracy}

## How it was made

    python jobs/quickstart/make_model.py --out {out} --seed {seed} --hidden-size {hidden_size} --layers {num_layers}

From nothing but generated text, no question of which stands in `train.jsonl` or `test.jsonl`. Phase one:
{one.num_questions:,} questions with right solutions, once, {one.questions_per_step} a step, AdamW with a peak learning
rate of {one.peak_learning_rate:g}. Phase two: {two.num_questions:,} more with the misconceptions above, peak
{two.peak_learning_rate:g}. Loss on the solutions only. Torch {torch}, {threads} threads, {minutes:.0f} minutes.
The same seed gives the same training data everywhere; the last digits of the parameters depend on the machine.

Licence: Apache-2.0, as the rest of the repository.
"""


def misconception_rows() -> str:
    """Rows of a Markdown table: kind of clause, right and wrong operation, probability."""
    return "\n".join(
        f"| {kind} | `{CLAUSE_KINDS[kind].operation}` | `{CLAUSE_KINDS[kind].misconception}` | {probability:.2f} |"
        for kind, probability in PLANTED_MISCONCEPTIONS.items()
    )


# ---------------------------------------------------------------------------------------------------------------------
# All of it
# ---------------------------------------------------------------------------------------------------------------------


def make(out: Path, seed: int, hidden_size: int, num_layers: int) -> None:
    """Train both phases and write the model's files to `out`."""
    started = time.monotonic()
    train_problems, test_problems = quickstart_problems()
    asked_later = {problem.question for problem in train_problems + test_problems}
    corpus = generate(CORPUS, seed, exclude=asked_later)
    problems_one = list(itertools.islice(corpus, PHASE_ONE.num_questions))
    problems_two = list(itertools.islice(corpus, PHASE_TWO.num_questions))

    tokenizer = make_tokenizer([f"{problem.question}\n{problem.solution()}" for problem in problems_one[:20_000]])
    torch.manual_seed(seed)
    model = make_model(tokenizer, hidden_size, num_layers)
    for phase, problems, misconceptions in (
        (PHASE_ONE, problems_one, {}),
        (PHASE_TWO, problems_two, PLANTED_MISCONCEPTIONS),
    ):
        dialogues = make_dialogues(tokenizer, problems, misconceptions, random.Random(seed))
        train(model, dialogues, phase, seed, tokenizer.pad_token_id)
    save(model, tokenizer, test_problems, out, seed, minutes=(time.monotonic() - started) / 60)


def save(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    test_problems: Sequence[WordProblem],
    out: Path,
    seed: int,
    minutes: float,
) -> None:
    """Write model, tokenizer and model card; `minutes` is the duration of the training."""
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    model.float()  # still the parameters rounded to bfloat16, but faster to compute with
    greedy = is_correct(model, tokenizer, test_problems, do_sample=False)
    sampled = is_correct(model, tokenizer, test_problems, do_sample=True)
    card = MODEL_CARD.format(
        parameters=model.num_parameters(),
        vocabulary=len(tokenizer),
        max_tokens=MAX_TOKENS,
        misconceptions=misconception_rows(),
        num_test=len(test_problems),
        accuracy=accuracy_rows(test_problems, greedy, sampled),
        out=out,
        seed=seed,
        hidden_size=model.config.hidden_size,
        num_layers=model.config.num_hidden_layers,
        one=PHASE_ONE,
        two=PHASE_TWO,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        minutes=minutes,
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the language model of the quick start from scratch.")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the model, in Hugging Face format"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--hidden-size", type=int, default=128, help="a multiple of 32")
    parser.add_argument("--layers", type=int, default=4)
    arguments = parser.parse_args()
    make(arguments.out, arguments.seed, arguments.hidden_size, arguments.layers)


if __name__ == "__main__":
    main()
