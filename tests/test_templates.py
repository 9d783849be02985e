"""Chat templates of the shapes that models come with: prompt, response and end of turn make the whole conversation.

The templates are written here, after what each family's does: what stands before a turn and after it, who is refused,
what is trimmed, stripped, added or prefilled. The tokenizer is made here too. It adds a token to the beginning of every
text unless it is told not to, as many do.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AddedToken, PreTrainedTokenizerFast

from east_ray.config import InputError, PromptConfig
from east_ray.questions.prompts import end_of_turn, render_prompt, tokenize
from east_ray.training.dataset import tokenize_example


def tokenizer_of(
    template: str, special: list[str], bos: str | None, eos: str, ordinary: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """Byte-level, with a few merges; `ordinary` tokens are added to the vocabulary and are not special."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("I", "t"), ("i", "s"), ("Ġ", "is"), ("Ċ", "Ċ")]
    vocabulary = [*letters, *("".join(pair) for pair in merges)]
    inner = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, merges))
    pieces = pre_tokenizers.Split(Regex(r"\n+| ?\S+|\s"), behavior="isolated")  # lines break before a word, not in it
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level])
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True) for token in special])
    inner.add_tokens([AddedToken(token, special=False) for token in ordinary])
    if bos is not None:
        both = [(bos, inner.token_to_id(bos))]
        inner.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=both)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bos, eos_token=eos, chat_template=template, clean_up_tokenization_spaces=False
    )


@dataclass(frozen=True)
class Shape:
    """A family's template, and what must come of it."""

    template: str
    special: list[str]
    end: str
    """The end of a response."""
    eos: str
    bos: str | None = None
    ordinary: tuple[str, ...] = ()
    ends_prompt: str = ""
    """What the prompt ends with."""
    rest: str = ""
    """What the template writes after the end of the last turn."""
    prompt: dict[str, Any] = field(default_factory=dict)
    thinking: str = ""
    """How a response begins that the template renders as it is; else a thinking one is not rendered whole."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return tokenizer_of(self.template, self.special, self.bos, self.eos, self.ordinary)


CHATML_TURNS = (
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
THINKS = ("<think>", "</think>")

SHAPES = {
    "llama3": Shape(
        "{{ bos_token }}{% set today = date_string | default('1 Jan 2024') %}"
        "{% set has_system = messages[0].role == 'system' %}"
        "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + today + '\\n\\n' }}"
        "{% if has_system %}{{ messages[0].content | trim }}{% endif %}{{ '<|eot_id|>' }}"
        "{% for m in (messages[1:] if has_system else messages) %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        bos="<|begin_of_text|>", eos="<|end_of_text|>", end="<|eot_id|>",
        ends_prompt="assistant<|end_header_id|>\n\n", prompt={"template_variables": {"date_string": "2 Feb 2025"}},
    ),
    "qwen2.5": Shape(
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
        "{% for m in messages %}" + CHATML_TURNS,
        CHATML_TOKENS, eos="<|im_end|>", end="<|im_end|>", ends_prompt="<|im_start|>assistant\n", rest="\n",
    ),
    "qwen2.5 base, whose text ends with another token than its turns": Shape(
        "{% for m in messages %}" + CHATML_TURNS,
        CHATML_TOKENS, eos="<|endoftext|>", end="<|im_end|>", rest="\n",
    ),
    "qwen3": Shape(  # thinking is stripped from all turns but those after the last question
        "{% set ns = namespace(last=-1) %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}{% set content = m.content %}"
        "{% if m.role == 'assistant' and loop.index0 < ns.last and '</think>' in content %}"
        "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
        "{% if m.role == 'assistant' and loop.index0 > ns.last and '</think>' not in content %}"
        "{% set content = '<think>\\n\\n</think>\\n\\n' + content %}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
        "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
        "{% endif %}",
        CHATML_TOKENS, eos="<|im_end|>", end="<|im_end|>", ordinary=THINKS, rest="\n", thinking="<think>\n",
        ends_prompt="<|im_start|>assistant\n",
    ),
    "gemma3": Shape(  # no system role, turns must alternate, the assistant is called model
        "{{ bos_token }}{% set system = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' %}"
        "{% for m in (messages[1:] if system else messages) %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}"
        "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
        "{{ (system if loop.first else '') + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        bos="<bos>", eos="<eos>", end="<end_of_turn>", ends_prompt="<start_of_turn>model\n", rest="\n",
    ),
    "deepseek-r1": Shape(  # the prompt opens the thinking; no turn that is rendered has any
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
        "{% elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
        "{% else %}{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}",
        ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
        bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>", end="<｜end▁of▁sentence｜>", ordinary=THINKS,
        ends_prompt="<｜Assistant｜><think>\n",
    ),
    "smollm2": Shape(
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
        "{{ '<|im_start|>system\\nYou are small.<|im_end|>\\n' }}{% endif %}" + CHATML_TURNS,
        CHATML_TOKENS, bos="<|im_start|>", eos="<|im_end|>", end="<|im_end|>", ends_prompt="<|im_start|>assistant\n",
        rest="\n",
    ),
    "phi": Shape(  # a conversation that needs no answer ends as a text does
        "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
        "{{ '<|assistant|>\\n' if add_generation_prompt else eos_token }}",
        ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        eos="<|endoftext|>", end="<|end|>", ends_prompt="<|assistant|>\n", rest="\n<|endoftext|>",
    ),
    "generation markers": Shape(
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}"
        "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        CHATML_TOKENS, eos="<|endoftext|>", end="<|im_end|>", rest="\n",
    ),
    "an end that is no special token": Shape(
        "{% for m in messages %}" + CHATML_TURNS,
        ["<|endoftext|>", "<|im_start|>"], eos="<|endoftext|>", end="<|im_end|>", ordinary=("<|im_end|>",), rest="\n",
    ),
    "the end of a text ends a turn": Shape(
        "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + '] ' + m.content }}"
        "{{ eos_token if m.role == 'assistant' }}{% endfor %}{{ '[assistant] ' if add_generation_prompt }}",
        ["<s>", "</s>"], bos="<s>", eos="</s>", end="</s>", ends_prompt="[assistant] ",
    ),
}  # fmt: skip
QUESTION, ANSWER = "It is 1 + 1?", "It is 2.\n\nIs it?"


def example(shape: Shape, tokenizer: Any, response: str, **said: Any) -> dict[str, list[int]]:
    row = {"question": QUESTION, "chosen": response, "chosen_finish_reason": "stop"} | said
    return tokenize_example(row, tokenizer, PromptConfig.model_validate(shape.prompt))


@pytest.mark.parametrize("system", [None, "Think."])
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "deepseek-r1"])
def test_an_example_is_the_conversation_as_the_template_renders_it(name: str, system: str | None) -> None:
    shape = SHAPES[name]
    prompt = PromptConfig.model_validate(shape.prompt | {"system": system})
    tokenizer, response = shape.tokenizer(), f"{shape.thinking}Hm.\n</think>\n\n{ANSWER}" if shape.thinking else ANSWER
    asked = [{"role": "system", "content": system}] if system else []
    asked += [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": response}]
    whole = str(tokenizer.apply_chat_template(asked, tokenize=False, **prompt.template_variables))
    text = render_prompt(tokenizer, QUESTION, prompt)
    assert text.endswith(shape.ends_prompt) and whole == text + response + shape.end + shape.rest
    row = {"question": QUESTION, "chosen": response, "chosen_finish_reason": "stop"}
    found = tokenize_example(row, tokenizer, prompt)
    rendered = tokenize(tokenizer, whole)
    assert found["prompt"] + found["chosen"] == rendered[: len(rendered) - len(tokenize(tokenizer, shape.rest))]


@pytest.mark.parametrize("name", SHAPES)
def test_what_was_sampled_stands_between_one_prompt_and_one_end(name: str) -> None:
    """The response letter by letter, as the tokenizer would not split it; ended, stopped by a string, and cut."""
    shape = SHAPES[name]
    tokenizer = shape.tokenizer()
    response = f"{shape.thinking}Hm.</think>{ANSWER}" if shape.ordinary == THINKS else ANSWER
    sampled = [token for letter in response for token in tokenize(tokenizer, letter)]
    end = tokenizer.convert_tokens_to_ids(shape.end)
    assert sampled != tokenize(tokenizer, response)
    prompt = tokenize(tokenizer, render_prompt(tokenizer, QUESTION, PromptConfig.model_validate(shape.prompt)))
    for more, reason, expected in (([end], "stop", [end]), ([], "stop", [end]), ([], "length", [])):
        found = example(shape, tokenizer, response, chosen_token_ids=sampled + more, chosen_finish_reason=reason)
        assert found == {"prompt": prompt, "chosen": sampled + expected}
    assert example(shape, tokenizer, response)["chosen"] == [*tokenize(tokenizer, response), end]
    assert end_of_turn(tokenizer, PromptConfig()) == [end]


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.bos])
def test_a_beginning_is_never_doubled(name: str) -> None:
    shape = SHAPES[name]
    tokenizer = shape.tokenizer()
    assert tokenizer("It")["input_ids"][0] == tokenizer.bos_token_id, "the tokenizer adds none, so nothing is tested"
    found = example(shape, tokenizer, ANSWER)
    assert found["chosen"].count(tokenizer.bos_token_id) == 0
    assert found["prompt"][:2].count(tokenizer.bos_token_id) == 1
    turns = 3 if shape.bos == "<|im_start|>" else 1  # SmolLM2's begins a text as it begins a turn
    assert found["prompt"].count(tokenizer.bos_token_id) == turns


def test_a_prompt_that_opens_the_thinking_opens_it_once() -> None:
    """And the response, which closes it, is trained on whole, where the template would strip it."""
    shape = SHAPES["deepseek-r1"]
    tokenizer = shape.tokenizer()
    found = example(shape, tokenizer, f"Hm.\n</think>\n\n{ANSWER}")
    text = tokenizer.decode(found["prompt"] + found["chosen"])
    assert text.count("<think>") == text.count("</think>") == 1
    assert text.endswith(f"<｜Assistant｜><think>\nHm.\n</think>\n\n{ANSWER}<｜end▁of▁sentence｜>")


def test_thinking_may_be_switched_off_by_a_variable_of_the_template() -> None:
    shape = SHAPES["qwen3"]
    prompt = PromptConfig(template_variables={"enable_thinking": False})
    text = render_prompt(shape.tokenizer(), QUESTION, prompt)
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    whole = shape.tokenizer().apply_chat_template(
        [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}], tokenize=False
    )
    assert str(whole) == f"{text}{ANSWER}<|im_end|>\n"


# ---------------------------------------------------------------------------------------------- templates that refuse


PLAIN = "{% for m in messages %}" + CHATML_TURNS


@pytest.mark.parametrize(
    ("template", "prompt", "end"),
    [
        ("{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN,
         {"system": "Think."}, "<|im_end|>"),
        ("{{ '' if date else raise_exception('no date') }}" + PLAIN,
         {"template_variables": {"date": "1"}}, "<|im_end|>"),
        ("{% if messages[-1].role == 'assistant' %}{{ raise_exception('one turn') }}{% endif %}" + PLAIN,
         {}, "<|endoftext|>"),
        ("{{ '<|im_start|>user\\n' + messages[-1 if messages[-1].role == 'user' else 0].content + '<|im_end|>\\n' }}",
         {}, "<|endoftext|>"),  # it renders no response, so what it ends with ends none
        ("{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}", {}, "<|endoftext|>"),
    ],
    ids=["wants a system message", "wants a variable", "wants one turn", "renders no response", "marks no end"],
)  # fmt: skip
def test_the_end_is_found_where_a_template_refuses_other_conversations(
    template: str, prompt: dict[str, Any], end: str
) -> None:
    tokenizer = tokenizer_of(template, CHATML_TOKENS, None, "<|endoftext|>")
    found = end_of_turn(tokenizer, PromptConfig.model_validate(prompt))
    assert found == [tokenizer.convert_tokens_to_ids(end)]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            {"system": "Think."},
            "the messages (system role not supported); prompt.system gives them a system message,",
        ),
        ({"template": "{question}{question}"}, "the messages (too long); prompt.system gives them no system message,"),
    ],
)
def test_a_template_that_refuses_the_prompt_is_one_sentence(prompt: dict[str, Any], message: str) -> None:
    refuses = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('system role not supported') }}{% endif %}"
        "{% if messages[0].content | length > 20 %}{{ raise_exception('too long\\nby far') }}{% endif %}"
    )
    tokenizer = tokenizer_of(refuses + PLAIN, CHATML_TOKENS, None, "<|im_end|>")
    with pytest.raises(InputError) as error:
        render_prompt(tokenizer, QUESTION, PromptConfig.model_validate(prompt))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert render_prompt(tokenizer, QUESTION, PromptConfig())
