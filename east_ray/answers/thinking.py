"""The thinking of a response, apart from what it says.

Thinking stands between the tags of many models. One end may be missing: the prompt opened it, or the end of the tokens
cut it off. Harmony's tags may have been stripped, which leaves "analysisWe compute … assistantfinalThe answer is 5".
"""

import re
from typing import Literal, NamedTuple

UnclosedThinking = Literal["count", "exclude"]

_NAME = r"(?:\w{1,12}:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratch_?pad|analysis|inner_monologue)"
_CHANNEL = r"[^<>\n]{0,60}(?:<\|constrain\|>\w{0,20})?<\|message\|>"
_TAG = re.compile(
    rf"[<\[◁](?:(?P<opens>{_NAME}(?:\s[^<>\n]{{0,60}})?[>\]▷]|\|(?:think(?:ing)?|begin_of_thought|start_thinking)\|>|unused94>thought"
    rf"|\|channel\|>(?:analysis|commentary){_CHANNEL}|\|channel>thought)"
    rf"|/{_NAME}[>\]▷]|\|(?:/think(?:ing)?|end_of_thought|end_thinking)\|>|unused95>"
    rf"|\|channel\|>final{_CHANNEL}|channel\|>)",
    re.IGNORECASE,
)
"""A tag that opens or closes thinking."""
_TAG_BEGINS = re.compile(r"[<\[◁]")
_STRIPPED_OPENING = re.compile(r"\s{0,9}analysis(?=[A-Z\\$])")
_CLOSING_WORDS = re.compile(r"assistant\n*final(?![ ])|^\.\.\.done thinking\.?$|^Here is my response:", re.MULTILINE)
"""What closes thinking without a tag: harmony's tags stripped, Ollama's display, Granite's words."""


class Parts(NamedTuple):
    """A response without its thinking."""

    said: str
    """What stands outside the thinking; the whole response if it marks none."""
    is_cut_off: bool = False
    """The last thinking is never closed."""


def without_thinking(response: str) -> Parts:
    """What a response says outside its thinking. Of a thinking that is never closed, all of the text is left out."""
    if "assistant" in response or "done thinking" in response or "my response:" in response:
        closing = [*_CLOSING_WORDS.finditer(response)]
        if closing:
            return Parts(response[closing[-1].end() :])
    if _STRIPPED_OPENING.match(response):
        return Parts("", is_cut_off=True)
    if not _TAG_BEGINS.search(response):
        return Parts(response)
    said: list[str] = []
    begin, is_thinking = 0, False
    for tag in _TAG.finditer(response):
        if not is_thinking and tag["opens"]:
            said.append(response[begin : tag.start()])
        elif not is_thinking:  # the prompt opened it: all before it is thinking
            said.clear()
        is_thinking = tag["opens"] is not None
        begin = tag.end()
    if not is_thinking:
        said.append(response[begin:])
    return Parts("\n".join(said), is_thinking)
