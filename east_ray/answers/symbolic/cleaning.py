r"""An answer without what surrounds it: math delimiters, currency signs, digit grouping, punctuation at its edges."""

import html
import re
import unicodedata

from east_ray.answers.symbolic.notation import rewritten

_FULL_WIDTH = {0xFF01 + offset: chr(0x21 + offset) for offset in range(94)}
_SPACES = "\u00a0\u2009\u202f\u3000"
_UNICODE = (
    _FULL_WIDTH
    | {ord("∛"): r"\sqrt[3]", ord("∜"): r"\sqrt[4]", ord("℃"): "°C", ord("℉"): "°F"}
    | str.maketrans(
        "−–—‐‑﹣×·⋅∗÷∕⁄′’‘º˚⩽⩾、。∣٫" + _SPACES, "------****///'''°°≤≥,.|." + " " * len(_SPACES), "€£¥￥₹₩₽₺₦₱฿₫₴₪¢✓✔∎٬"
    )
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]|([⁰¹²³⁴-⁹]+)[⁄/]([₀-₉]+)")
_SIGN_ABOVE = re.compile("(?<![A-Za-z0-9)}⁰¹²³⁴-⁹])⁻(?=[0-9])")
_EMPTY_SET = re.compile("(?<!\\w)Ø(?!\\w)")
_IN_A_CIRCLE = re.compile("[①-⑳]")
_EMPTY_BEFORE_SIGN = re.compile(r"^\s*\{\s*\}\s*(?=[-+])")
_DISPLAYED = re.compile(r"^\s*\\begin\{(equation|displaymath|math)(\*?)\}(.*)\\end\{\1\2\}\s*$", re.DOTALL)
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}\d{0,2}|#\d{1,5});")
_HTML_SCRIPT = re.compile(r"<(sup|sub)>([^<>]{1,100})</\1>", re.IGNORECASE)
_INVISIBLE_CATEGORY = "Cf"  # zero-width spaces, direction marks

_GROUPED_DIGITS = re.compile(r"(?<=\d) ?(?:\{ ?, ?\}(?: ?\\!)?|,? ?\\!|\\[,;: ]|~) ?(?=\d{3}(?!\d))")
_DELIMITERS = re.compile(r"\\\$|\$|\\[()]|\\\[(?!\d+(?:pt|em|ex))|(?<!\\)\\\]")
_DOUBLED_BACKSLASH = re.compile(r"\\\\(?=[A-Za-z]{2})")
_DOUBLED_COMMAND = re.compile(r"\\\\(?=[A-Za-z]{2}|[^\sA-Za-z0-9])")
_BACKSLASHES = re.compile(r"\\+")
_WRAPPER = re.compile(r"(?:\\(?:boxed|fbox|framebox)\s*)?\{")
_ROW_SPACING = re.compile(r"(\\\\)\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\]")
_CURRENCY_CODE = re.compile(r"^(?:USD|US(?=\s*\\?\$)|EUR|GBP|Rs\.?)\s*(?=\\?\$?\s*\d)")
_LETTER_TIMES = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))")
_MARKUP = ' \t\r\n\f\v*_`"“”'


_SQUARE_METRES = re.compile(r"(?<=\d )m(?=[²³](?:\s|$))")  # but 5m^2 is a product


def _latex_fraction(character: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", character[0]).replace("/", "⁄").partition("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def _plain_unicode(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    text = "".join(c for c in text if unicodedata.category(c) != _INVISIBLE_CATEGORY)
    text = _VULGAR_FRACTION.sub(_latex_fraction, text)
    text = _IN_A_CIRCLE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = _EMPTY_SET.sub("∅", _SIGN_ABOVE.sub("-", text)).translate(_UNICODE)
    text = _SQUARE_METRES.sub(r"\\text{m}", text)
    text = re.sub("[⁰¹²³⁴-⁹⁺⁻ⁿ]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    return re.sub("[₀-₉ₙ]+", lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)


def _without_html(text: str) -> str:
    """The text with the characters that entities name, and with scripts in the notation of LaTeX."""
    text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    return _HTML_SCRIPT.sub(lambda match: f"{'^' if match[1].lower() == 'sup' else '_'}{{{match[2]}}}", text)


def clean(answer: str) -> str:
    """The answer without math delimiters, currency signs, digit grouping and punctuation at its edges."""
    text = _without_html(answer) if "&" in answer or "<" in answer else answer
    text = text if text.isascii() else _plain_unicode(text)
    if text[:1] in "UERG":
        text = _CURRENCY_CODE.sub("", text)
    if "10" in text:
        text = _LETTER_TIMES.sub("*", text)
    if "\\" in text or "$" in text:
        text = _ROW_SPACING.sub(r"\1 ", text)
        text = _DISPLAYED.sub(r"\3", text)
        # Text that was escaped twice has only doubled backslashes. Otherwise, two before a letter may end a matrix row.
        if all(len(run) % 2 == 0 for run in _BACKSLASHES.findall(text)):
            text = _DOUBLED_COMMAND.sub(r"\\", text)  # but x = 2 \\ y = 3 has two lines
        elif r"\begin" not in text:
            text = _DOUBLED_BACKSLASH.sub(r"\\", text)
        text = _DELIMITERS.sub(" ", text)
    if not text.isdecimal():
        text = rewritten(text)
    if "\\" in text or "~" in text or "{" in text:
        text = _GROUPED_DIGITS.sub("", text).replace("\\!", "").replace("{}^", "^")
        text = _EMPTY_BEFORE_SIGN.sub("", text)
    text = _trimmed(text)
    wrapper = _WRAPPER.match(text)
    if wrapper and closing_brace(text, wrapper.end() - 1) == len(text) - 1:
        text = _trimmed(text[wrapper.end() : -1])
    return text


def _trimmed(text: str) -> str:
    text = text.lstrip(_MARKUP).rstrip(_MARKUP + ".,;:")
    while text.endswith("\\"):
        text = text[:-1].rstrip(" .,;")
    return text


def closing_brace(text: str, start: int) -> int:
    """The index of the brace that closes the brace at `start`, or the length of the text if there is none."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    return len(text)
