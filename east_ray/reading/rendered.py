r"""Prompts that a chat template has rendered: the question in them is the user's last turn, without the markers.

A trainer renders what it gets once more, so that markers in a question would be there twice.

>>> user_turn("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n")
'1 + 1?'
>>> user_turn("user\n1 + 1?\nassistant\n"), user_turn("What does a user say?")
('1 + 1?', 'What does a user say?')
"""

import re

#: What may stand before the first turn.
_BEGIN = r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)?\s*"
#: Of each template: how the rendered text begins, what stands before a turn of the user, and what stands behind it.
_TEMPLATES = [
    tuple(re.compile(part) for part in (_BEGIN + begin, before, after))
    for begin, before, after in (
        (r"<\|im_start\|>(?:system|developer|user)\n", r"<\|im_start\|>user\n", r"<\|im_end\|>"),  # Qwen, SmolLM2
        (r"<\|start_header_id\|>", r"<\|start_header_id\|>user<\|end_header_id\|>", r"<\|eot_id\|>"),  # Llama 3
        (r"<\|header_start\|>", r"<\|header_start\|>user<\|header_end\|>", r"<\|eot\|>"),  # Llama 4
        (r"<start_of_turn>user\n", r"<start_of_turn>user\n", r"<end_of_turn>"),  # Gemma
        (r"<\|(?:system|user)\|>", r"<\|user\|>", r"<\|end\|>|</s>|<\|assistant\|>"),  # Phi, Zephyr
        (r"\[(?:SYSTEM_PROMPT|INST)\]", r"\[INST\](?:\s*<<SYS>>(?s:.*?)<</SYS>>)?", r"\[/INST\]"),  # Mistral, Llama 2
        (r"(?:<｜begin▁of▁sentence｜>|<｜User｜>)", r"<｜User｜>", r"<｜Assistant｜>"),  # DeepSeek
    )
]
#: What is left of Qwen's template where the markers were taken out as special tokens, as in verl's rollouts.
_BARE = re.compile(r"(?:system\n(?s:.*?)\n)?user\n((?s:.*))\nassistant\s*(?:<think>\s*)?(?:</think>\s*)?")


def user_turn(text: str) -> str:
    """The user's last turn in a text that a chat template has rendered; any other text as it is."""
    for begin, before, after in _TEMPLATES:
        if begin.match(text) and (turns := list(before.finditer(text))):
            start = turns[-1].end()
            if end := after.search(text, start):
                return text[start : end.start()].strip()
    if bare := _BARE.fullmatch(text):
        return (bare[1].rpartition("\nuser\n")[2] if "\nassistant\n" in bare[1] else bare[1]).strip()
    return text
