r"""From the text of an answer to tokens, in which LaTeX, plain text and Unicode signs of one meaning are one.

Models write one and the same answer as ``\dfrac{1}{2}``, ``1/2``, ``½`` or ``.5``; this module hides the difference
from the parser. Each character is read a bounded number of times.
"""

import re
import unicodedata
from fractions import Fraction
from math import gcd
from typing import NamedTuple

MAX_DIGITS = 1000  # of one number


class NotMathematicsError(ValueError):
    """The text is not an expression of the grammar: prose, broken LaTeX, or beyond the limits."""


class Token(NamedTuple):
    """A piece of an answer: its kind, and its text in one spelling."""

    kind: str  # number | clock | letter | word | text | function | begin | end | mark
    text: str


# ---------------------------------------------------------------------------------------------------------- cleaning

_FULL_WIDTH = {0xFF01 + offset: chr(0x21 + offset) for offset in range(94)}
_LOOK_ALIKES = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "∕": "/",
    "⁄": "/", "′": "'", "’": "'", "º": "°", "⩽": "≤", "⩾": "≥", "，": ",", "、": ",", "。": ".", "∣": "|", "％": "%",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u3000": " ", "€": "", "£": "", "¥": "", "￥": "",
}  # fmt: skip
_UNICODE = str.maketrans({**{chr(code): text for code, text in _FULL_WIDTH.items()}, **_LOOK_ALIKES})
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_INVISIBLE_CATEGORY = "Cf"  # zero-width spaces, direction marks

_GROUPED_DIGITS = re.compile(r"(?<=\d) ?(?:\{ ?, ?\}|,? ?\\!|\\[,;: ]|~) ?(?=\d{3}(?!\d))")
_DELIMITERS = re.compile(r"\\\$|\$|\\[()]|\\\[(?!\d+(?:pt|em|ex))|(?<!\\)\\\]")
_DOUBLED_BACKSLASH = re.compile(r"\\\\(?=[A-Za-z])")
_BACKSLASHES = re.compile(r"\\+")
_WRAPPER = re.compile(r"(?:\\(?:boxed|fbox|framebox)\s*)?\{")
_MARKUP = ' \t\r\n\f\v*_`"“”'


def _latex_fraction(character: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", character[0]).partition("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def _plain_unicode(text: str) -> str:
    text = "".join(c for c in text if unicodedata.category(c) != _INVISIBLE_CATEGORY).translate(_UNICODE)
    text = _VULGAR_FRACTION.sub(_latex_fraction, text)
    text = re.sub("[⁰¹²³⁴-⁹⁺⁻ⁿ]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    return re.sub("[₀-₉ₙ]+", lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)


def clean(answer: str) -> str:
    """The answer without what carries no meaning: math delimiters, currency signs, digit grouping, edge punctuation."""
    text = answer if answer.isascii() else _plain_unicode(answer)
    if "\\" in text or "$" in text:
        # JSON escaped twice doubles every backslash; with others about, two before a letter may end a matrix row.
        if all(len(run) % 2 == 0 for run in _BACKSLASHES.findall(text)):
            text = text.replace(r"\\", "\\")
        elif r"\begin" not in text:
            text = _DOUBLED_BACKSLASH.sub(r"\\", text)
        text = _DELIMITERS.sub(" ", text)
    if "\\" in text or "~" in text or "{" in text:
        text = _GROUPED_DIGITS.sub("", text).replace("\\!", "")
    text = _trimmed(text)
    wrapper = _WRAPPER.match(text)
    if wrapper and _closing_brace(text, wrapper.end() - 1) == len(text) - 1:
        text = _trimmed(text[wrapper.end() : -1])
    return text


def _trimmed(text: str) -> str:
    text = text.lstrip(_MARKUP).rstrip(_MARKUP + ".,;:")
    while text.endswith("\\"):
        text = text[:-1].rstrip(" .,;")
    return text


# -------------------------------------------------------------------------------------------------------- tokenizing

_MARKS = {
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "pm": "±", "mp": "∓",
    "le": "≤", "leq": "≤", "leqslant": "≤", "ge": "≥", "geq": "≥", "geqslant": "≥", "lt": "<", "gt": ">",
    "ne": "≠", "neq": "≠", "approx": "≈", "simeq": "≈", "equiv": "=", "in": "∈",
    "cup": "∪", "cap": "∩", "setminus": "∖", "backslash": "∖",
    "{": "⦃", "}": "⦄", "lbrace": "⦃", "rbrace": "⦄", "langle": "⟨", "rangle": "⟩",
    "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "lbrack": "[", "rbrack": "]",
    "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "|": "|", "lVert": "|", "rVert": "|", "colon": ":",
    "quad": ",", "qquad": ",", "and": ",", "or": ",", "land": ",", "lor": ",", "wedge": ",", "vee": ",", "\\": "\\\\",
    "%": "%", "degree": "°", "prime": "'", "sqrt": "√", "frac": "frac", "dfrac": "frac", "tfrac": "frac",
    "cfrac": "frac", "binom": "binom", "dbinom": "binom", "tbinom": "binom", "sum": "∑", "prod": "∏",
    "choose": "choose", "over": "over", "to": "→", "rightarrow": "→", "Rightarrow": "→", "implies": "→", "&": "&",
}  # fmt: skip
_LETTERS = {"pi": "π", "infty": "∞", "infinity": "∞", "inf": "∞", "oo": "∞", "emptyset": "∅", "varnothing": "∅",
            "theta": "θ", "varphi": "φ", "phi": "φ", "alpha": "α", "beta": "β", "gamma": "γ", "lambda": "λ", "mu": "μ",
            "sigma": "σ", "omega": "ω", "epsilon": "ε", "varepsilon": "ε", "rho": "ρ", "delta": "δ",
            "R": "ℝ", "reals": "ℝ", "cdots": "…", "ldots": "…", "dots": "…"}  # fmt: skip
_FUNCTION_NAMES = """
    sin cos tan sec csc cot sinh cosh tanh arcsin arccos arctan asin acos atan ln log lg exp max min gcd lcm abs floor
    ceil
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_LAYOUT_COMMANDS = """
    left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits
    nolimits boxed fbox framebox mathbf mathcal mathit mathsf boldsymbol bm vec overline overrightarrow hat bar widehat
    underline bf rm it Large large normalsize ensuremath hfill , ; : ! > /
"""
IGNORED = frozenset((*_LAYOUT_COMMANDS.split(), " ", "\n", "\t"))
_TEXT_COMMAND_NAMES = "text textbf textrm textit textnormal textsf textup mbox hbox mathrm operatorname"
TEXT_COMMANDS = frozenset(_TEXT_COMMAND_NAMES.split())
_PLAIN_WORD_NAMES = "pi infinity inf oo theta alpha beta gamma lambda sqrt and or"
_PLAIN_WORDS = frozenset(_PLAIN_WORD_NAMES.split())
_UNIT_NAMES = """
    cm mm km nm dm ft in yd mi kg mg lb lbs oz ml mL dL hr hrs min mins sec secs ms Hz mph kph day men cup box pct deg
    rad am pm gal sq cu cc USD usd
"""
SHORT_UNITS = frozenset(_UNIT_NAMES.split())
_TWO_CHARACTER_MARKS = {"<=": "≤", ">=": "≥", "!=": "≠", "**": "^", ":=": "=", "==": "=", "=>": "→", "->": "→"}

_THOUSANDS = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?![\d])(?!,\d)|\d{1,3}(?: \d{3})+(?! ?\d))(?:\.\d+)?")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
_MIXED = re.compile(r"(\d+) +(\d+)/(\d+)(?![\d.])")
_NUMBER = re.compile(r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?\.?")
_CLOCK = re.compile(r"(\d{1,2}):([0-5]\d)(?!\d)(?:\s*(?:[ap]\.?(?:m\.?)?)(?![A-Za-z]))?", re.IGNORECASE)
_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_BEGIN = re.compile(r"\{([a-zA-Z]+)\*?\}(?:\s*\{[lcr|\s]*\})?")
_WORD = re.compile(r"[A-Za-z]+")
_BLANKS = re.compile(r"[\s~]+")


def _closing_brace(text: str, start: int) -> int:
    """Index of the brace that closes the one at `start`; the end of the text if none does."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    return len(text)


def _repeating_decimal(whole: str, fixed: str, repeated: str) -> Fraction:
    """0.1(6) = 16/90 - 1/90: the digits up to the end of the first period, less those before it, over 9..90..0."""
    numerator = int(f"{whole}{fixed}{repeated}") - int(f"{whole}{fixed}" or "0")
    return Fraction(numerator, (10 ** len(repeated) - 1) * 10 ** len(fixed))


class _Tokenizer:
    """Splits a cleaned answer into tokens, in which LaTeX commands, words and Unicode signs of one meaning are one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.bracket_depth = 0
        self.tokens: list[Token] = []

    def run(self) -> list[Token]:
        while self.position < len(self.text):
            character = self.text[self.position]
            if character.isspace() or character == "~":
                self.position = _BLANKS.match(self.text, self.position).end()  # type: ignore[union-attr]
            elif character.isdecimal() or (
                character == "." and self.text[self.position + 1 : self.position + 2].isdecimal()
            ):
                self._number()
            elif character == "\\":
                self._command()
            elif character.isascii() and character.isalpha():
                self._word()
            elif character.isalpha() and character != "ℝ":
                self._add("letter", character)
                self.position += 1
            else:
                self._mark(character)
        return self.tokens

    def _add(self, kind: str, text: str) -> None:
        self.tokens.append(Token(kind, text))

    def _number(self) -> None:
        text, position = self.text, self.position
        if match := _CLOCK.match(text, position):
            hours, minutes = int(match[1]), int(match[2])
            # A ratio in lowest terms is read as a ratio, so 11:21 is 11/21; 4:30 and 12:00 are times of day.
            if minutes == 0 or gcd(hours, minutes) > 1:
                self._add("clock", f"{hours}:{minutes:02}")
                self.position = match.end()
                return
        if self.bracket_depth == 0 and (match := _THOUSANDS.match(text, position)):
            self._add("number", match[0].replace(",", "").replace(" ", ""))
        elif match := _REPEATING.match(text, position):
            if len(match[0]) > MAX_DIGITS:
                raise NotMathematicsError("repeating decimal")
            self._add("number", str(_repeating_decimal(match[1], match[2], match[3] or match[4])))
        elif match := _MIXED.match(text, position):
            if len(match[0]) > MAX_DIGITS or int(match[3]) == 0:
                raise NotMathematicsError("mixed number")
            self._add("number", str(int(match[1]) + Fraction(int(match[2]), int(match[3]))))
        else:
            match = _NUMBER.match(text, position)
            assert match is not None
            self._add("number", match[0])
        self.position = match.end()

    def _command(self) -> None:
        match = _COMMAND.match(self.text, self.position)
        if match is None:
            raise NotMathematicsError("lone backslash")
        self.position = match.end()
        name = match[1]
        if name in IGNORED:
            return
        if name in TEXT_COMMANDS:
            self._text(name)
        elif name in ("begin", "end"):
            environment = _BEGIN.match(self.text, self.position)
            if environment is None:
                raise NotMathematicsError("environment without a name")
            self.position = environment.end()
            self._add(name, environment[1])
        elif name == "mathbb":
            self._add("letter", "ℝ" if "R" in self.text[self.position : self.position + 3] else "mathbb")
            self.position = _closing_brace(self.text, self.position) + 1
        elif name in ("pmod", "mod", "bmod"):
            # "9 (mod 11)" is the answer 9: the modulus is part of the question.
            if not self.tokens or name == "bmod":
                raise NotMathematicsError("modulus")
            self._add("text", "mod")
            self.position = len(self.text)
        elif name in FUNCTIONS:
            self._add("function", name)
        elif name in _MARKS:
            self._mark(_MARKS[name], 0)
        else:
            self._add("letter", _LETTERS.get(name, "\\" + name))

    def _text(self, command: str) -> None:
        while self.text[self.position : self.position + 1] == " ":
            self.position += 1
        if self.text[self.position : self.position + 1] != "{":
            return
        end = _closing_brace(self.text, self.position)
        content = self.text[self.position + 1 : end].replace("~", " ").strip()
        self.position = end + 1
        words = re.sub(r"[^a-z]+", " ", content.lower()).strip()
        opens_value = not self.tokens or (self.tokens[-1].kind == "mark" and self.tokens[-1].text in "=≈∈+-*/,(")
        if words == "min" and not opens_value:
            self._add("word", words)  # 40 min: minutes, not a minimum
        elif words in ("and", "or", "") and not any(c.isalnum() and not c.isalpha() for c in content):
            self._add("mark", ",")
        elif words in FUNCTIONS and command in ("operatorname", "mathrm"):
            self._add("function", words)
        elif (command == "mathrm" and content in ("e", "i", "d", "π")) or (
            opens_value and re.fullmatch(r"\(?[A-Za-z]{1,2}\)?|\(?[-+]?[\d.,/]+\s*%?\)?", content)
        ):
            self.tokens.extend(_Tokenizer(content).run())
        else:
            self._add("text", content)

    def _word(self) -> None:
        match = _WORD.match(self.text, self.position)
        assert match is not None
        self.position = match.end()
        word = match[0]
        lower = word.lower()
        is_minutes = lower == "min" and self.tokens and self.tokens[-1].kind == "number"
        if lower in FUNCTIONS and not is_minutes:
            self._add("function", lower)
        elif lower in _PLAIN_WORDS:
            if lower in _MARKS:
                self._mark(_MARKS[lower], 0)
            else:
                self._add("letter", _LETTERS[lower])
        elif len(word) >= 3 or word in SHORT_UNITS:
            self._add("word", word)
        else:
            for letter in word:
                self._add("letter", letter)

    def _mark(self, mark: str, length: int = 1) -> None:
        if length and (double := _TWO_CHARACTER_MARKS.get(self.text[self.position : self.position + 2])):
            mark, length = double, 2
        self.position += length
        if mark in "([⦃⟨":
            self.bracket_depth += 1
        elif mark in ")]⦄⟩":
            self.bracket_depth = max(0, self.bracket_depth - 1)
        self._add("letter" if mark in "ℝ∅∞" else "mark", mark)


def tokenize(text: str) -> list[Token]:
    """The tokens of a cleaned answer.

    Raises:
        NotMathematicsError: a command or a number is broken.
    """
    return _Tokenizer(text).run()


# ------------------------------------------------------------------------------------------------------------- words

_BELOW_TWENTY = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {word: value for value, word in enumerate(_BELOW_TWENTY.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), start=2)
}
_MAX_NUMBER_WORDS = 12


def number_in_words(words: str) -> int | None:
    """eighteen, twenty one, three hundred and five, two thousand; None for anything else, such as one two."""
    total = current = 0
    parts = [word for word in words.split() if word != "and"]
    if not parts or len(parts) > _MAX_NUMBER_WORDS:
        return None
    for word in parts:
        if (value := _NUMBER_WORDS.get(word)) is not None:
            follows_tens = current % 100 >= 20 and current % 10 == 0 and 0 < value < 10
            if current % 100 and not follows_tens:
                return None
            current += value
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word in ("thousand", "million"):
            total += max(current, 1) * (1000 if word == "thousand" else 1_000_000)
            current = 0
        else:
            return None
    return total + current


_COMMAND_NAME = re.compile(r"\\([A-Za-z]+)")
_BETWEEN_WORDS = re.compile(r"[^\w+*/=<>^|-]+")


def words_of(text: str) -> str:
    """Prose as its case-folded words, without markup and punctuation."""

    def unmarked(command: re.Match[str]) -> str:
        return " " if command[1] in TEXT_COMMANDS | IGNORED else f" {command[1]} "

    return " ".join(_BETWEEN_WORDS.sub(" ", _COMMAND_NAME.sub(unmarked, text).casefold()).split())
