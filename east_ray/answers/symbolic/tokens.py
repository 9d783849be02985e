r"""From the text of an answer to tokens. LaTeX, plain text and Unicode signs with one meaning become the same token.

Models write the same answer as ``\dfrac{1}{2}``, ``1/2``, ``½`` or ``.5``; this module hides such differences from the
parser. Each character is read a bounded number of times.
"""

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from east_ray.answers.symbolic.cleaning import closing_brace
from east_ray.answers.symbolic.commands import (
    ACCENTS,
    BLACKBOARD,
    FUNCTIONS,
    IGNORED,
    LETTERS,
    MARKS,
    PLAIN_WORDS,
    SEGMENT_LINES,
    SHORT_UNITS,
    SIGN_OF_CHARACTER,
    TEXT_COMMAND_NAMES,
    TEXT_COMMANDS,
    TYPE_MARKS,
)
from east_ray.answers.symbolic.literals import (
    BROKEN_PREFIX,
    CLOCK,
    DATE,
    HOUR,
    PREFIXED,
    derivative_name,
    in_base,
    repeating_decimal,
    time_of_day,
)

MAX_DIGITS = 1000  # of one number


class NotMathematicsError(ValueError):
    """The text is not an expression of the grammar: it is prose, broken LaTeX, or exceeds a limit."""


class Token(NamedTuple):
    """A piece of an answer: its kind, and its text in a uniform spelling."""

    kind: str  # number | literal | letter | word | text | function | begin | end | mark | opaque
    text: str


# -------------------------------------------------------------------------------------------------------- tokenizing

AND = "and"  # separates items as a comma does, but inequalities joined by it hold together


_TWO_CHARACTER_MARKS = {"<=": "≤", ">=": "≥", "!=": "≠", "**": "^", ":=": "=", "==": "=", "=>": "→", "->": "→"}

_THOUSANDS = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?![\d])(?!,\d)|\d{1,3}(?: \d{3})+(?! ?\d))(?:\.\d+)?")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
_MIXED = re.compile(r"(\d+) +(\d+)/(\d+)(?![\d.])")
_NUMBER = re.compile(r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?\.?")
_INDEX = re.compile(r"\d+(?!\.\d)(?![0-9A-Z]*_)")
_BASE_OF_LOGARITHM = re.compile(r"\d{1,2}(?=\()")
_DERIVATIVE = re.compile(r"d([A-Za-z])/d([A-Za-z])(?![A-Za-z])")
_COMMAND = re.compile(r"\\(q?quad|[A-Za-z]+|.)", re.DOTALL)  # \quadx is \quad x
_BEGIN = re.compile(r"\{([a-zA-Z]+)\*?\}(?:\s*\{[lcr|\s]*\})?")
_LATIN = "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ"
_WORD = re.compile(f"[{_LATIN}]+")
_BEFORE_PROPOSITION = frozenset("(∧∨→↔¬")
_VECTORS = re.compile(r"\\(?:vec|overrightarrow|mathbf|boldsymbol|bm|hat|mathbb|nabla)(?![a-z])|[ℕℤℚℝℂ]")
_MAX_ACCENTS = 8  # in one another
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_FONTS = frozenset(("mathbf", "mathit", "mathsf", "mathcal", "boldsymbol", "bm"))
_FONT_OF_WORD = re.compile(r"\s*\{[^{}\\]*[A-Za-z]{3}[^{}\\]*\}")
_NESTED_TEXT = re.compile(rf"\\(?:{TEXT_COMMAND_NAMES.replace(' ', '|')})\s*\{{([^{{}}]*)\}}")
_VARIABLES = frozenset("iknxyz")  # in 3\text{i}, i is no unit
_AFTER_DIGITS = frozenset("_0123456789")  # 2\text{A}3_{16}
_QUANTITY = re.compile(r"[-+]?\$?\d[\d.,/:]*+[A-Za-z.\s]*")
_LETTERS_OR_NUMBER = re.compile(
    r"\(?[A-Za-z]{1,2}\)?|\(?[A-Za-z]\)?(?:\s*(?:,\s*and\b|,|and\b|&)\s*\(?[A-Za-z]\)?)+|\(?[-+]?[\d.,/]+\s*%?\)?"
)
_UNITS_TOO = frozenset(("min", "sec", "max"))
_ARGUMENT = re.compile(r"\s*[A-Za-z0-9(\\{^]")  # of a function: 40 min, 12 sec, but 2 sec x
_MODULUS = re.compile(r"\s*\d+")
_BLANKS = re.compile(r"[\s~]+")


class Tokenizer:
    """Splits a cleaned answer into tokens."""

    def __init__(self, text: str, num_accents: int = 0) -> None:
        self.text = text
        self.num_accents = num_accents  # around the text
        self.position = 0
        self.bracket_depth = 0
        self.tokens: list[Token] = []

    def run(self) -> list[Token]:
        """The tokens, in order."""
        while self.position < len(self.text):
            character = self.text[self.position]
            if character == "~" and self._negates():
                self._add("letter", "¬")
                self.position += 1
            elif character.isspace() or character == "~":
                self.position += 1
            elif character.isdecimal() or (
                character == "." and self.text[self.position + 1 : self.position + 2].isdecimal()
            ):
                self._number()
            elif character == "\\":
                self._command()
            elif character.isalpha() and _WORD.match(character):
                self._word()
            elif (character.isalpha() or unicodedata.category(character)[0] == "M") and character != "ℝ":
                self._add("letter", character)
                self.position += 1
            else:
                self._mark(character)
        return self.tokens

    def _negates(self) -> bool:
        """Whether ~ stands before a proposition, as in (~p); elsewhere it is a space of LaTeX."""
        before = self.tokens[-1].text if self.tokens else "("
        return before in _BEFORE_PROPOSITION and self.text[self.position + 1 : self.position + 2].isalpha()

    def _add(self, kind: str, text: str) -> None:
        self.tokens.append(Token(kind, text))

    def _number(self) -> None:
        text, position = self.text, self.position
        match = CLOCK.match(text, position) or HOUR.match(text, position)
        if match and (time := time_of_day(match)) is not None:
            self._add("literal", time)
            self.position = match.end()
            return
        if match := DATE.match(text, position):
            self._add("literal", match[0])
        elif match := PREFIXED.match(text, position):
            place, digits = next((place, digits) for place, digits in enumerate(match.groups()) if digits)
            self._add("literal", in_base(digits, (16, 2, 8)[place]))
        elif BROKEN_PREFIX.match(text, position):
            raise NotMathematicsError("digits beyond the base")
        elif self.bracket_depth == 0 and (match := _THOUSANDS.match(text, position)):
            self._add("number", match[0].replace(",", "").replace(" ", ""))
        elif match := _REPEATING.match(text, position):
            if len(match[0]) > MAX_DIGITS:
                raise NotMathematicsError("repeating decimal")
            self._add("number", str(repeating_decimal(match[1], match[2], match[3] or match[4])))
        elif match := _MIXED.match(text, position):
            if len(match[0]) > MAX_DIGITS or int(match[3]) == 0:
                raise NotMathematicsError("mixed number")
            self._add("number", str(int(match[1]) + Fraction(int(match[2]), int(match[3]))))
        else:
            match = _NUMBER.match(text, position)
            assert match is not None
            self._add("number", match[0])
        self.position = match.end()

    def _command(self) -> None:  # noqa: PLR0912 - a case for each kind of command
        match = _COMMAND.match(self.text, self.position)
        if match is None:
            raise NotMathematicsError("lone backslash")
        self.position = match.end()
        name = match[1]
        if name in IGNORED:
            if name in _FONTS and _FONT_OF_WORD.match(self.text, self.position):
                self._text(name)
            return
        if name in TEXT_COMMANDS:
            self._text(name)
        elif name in ACCENTS:
            self._accent(ACCENTS[name])
        elif name in ("color", "textcolor"):
            self.position = closing_brace(self.text, self.position) + 1
        elif name in ("begin", "end"):
            environment = _BEGIN.match(self.text, self.position)
            if environment is None:
                raise NotMathematicsError("environment without a name")
            self.position = environment.end()
            self._add(name, environment[1])
        elif name in ("mathbb", "Bbb"):
            letters = self._group().strip()
            self._add("letter", BLACKBOARD.get(letters, f"\\mathbb {letters}"))
        elif name in ("pmod", "mod", "bmod"):
            # The answer of "9 (mod 11)" is 9; the modulus is part of the question.
            if name == "bmod":
                self._add("mark", "mod")
                return
            if not self.tokens:
                raise NotMathematicsError("modulus")
            self._add("text", "mod")
            if modulus := _MODULUS.match(self.text, self.position):
                self.position = modulus.end()
            else:
                self._group()
        elif name in FUNCTIONS:
            self._add("function", name)
        elif name in MARKS:
            keeps_order = name == "times" and _VECTORS.search(self.text)
            self._mark("×" if keeps_order else MARKS[name], 0)
        elif name in LETTERS:
            self._add("letter", LETTERS[name])
        else:
            self._add("opaque", "\\" + name)

    def _group(self) -> str:
        """The group in braces that comes next, or else the next command or character."""
        match = _BLANKS.match(self.text, self.position)
        start = match.end() if match else self.position
        if self.text[start : start + 1] == "{":
            self.position = closing_brace(self.text, start) + 1
            return self.text[start + 1 : self.position - 1]
        command = _COMMAND.match(self.text, start)
        self.position = command.end() if command else start + 1
        return self.text[start : self.position]

    def _accent(self, accent: str) -> None:
        """A mark over letters makes a name of them. Of a complex number in digits, a line means the conjugate."""
        start, content = self.position, self._group()
        if accent == "bar" and _IMAGINARY.search(content) and re.search(r"\d", content):
            self.position = start
            self._add("function", "conj")
            return
        if self.num_accents == _MAX_ACCENTS:
            raise NotMathematicsError("too many accents")
        tokens = Tokenizer(content, self.num_accents + 1).run()
        below = [token.text for token in tokens if token.text not in ("{", "}")]
        if not below:
            raise NotMathematicsError("an accent over nothing")
        is_segment = len(below) > 1 and all(len(text) == 1 and text.isupper() for text in below)
        is_segment = is_segment or all(token.kind == "number" for token in tokens)
        if (len(below) == 1 and accent in TYPE_MARKS) or (is_segment and accent in SEGMENT_LINES):
            self.tokens += tokens
        else:
            self._add("letter", f"\\{accent} {' '.join(below)}")

    def _text(self, command: str) -> None:
        while self.text[self.position : self.position + 1] == " ":
            self.position += 1
        if self.text[self.position : self.position + 1] != "{":
            return
        end = closing_brace(self.text, self.position)
        content = self.text[self.position + 1 : end].replace("~", " ").strip()
        self.position = end + 1
        if nested := _NESTED_TEXT.fullmatch(content):
            content = nested[1].strip()
        words = re.sub(r"[^a-z]+", " ", content.lower()).strip()
        opens_value = not self.tokens or (self.tokens[-1].kind == "mark" and self.tokens[-1].text in "=≈∈+-*/,(")
        if words == "min" and not opens_value:
            self._add("word", words)  # 40 min: minutes, not a minimum
        elif words in ("and", "or", "") and not any(c.isalnum() and not c.isalpha() for c in content):
            self._add("mark", AND if words == "and" else ",")
        elif words in FUNCTIONS and (
            command in ("operatorname", "mathrm")
            or (content == words and words not in _UNITS_TOO and _ARGUMENT.match(self.text, self.position))
        ):
            self._add("function", words)
        elif (
            (command == "mathrm" and content in ("e", "i", "d", "π"))
            or (opens_value and (_LETTERS_OR_NUMBER.fullmatch(content.rstrip(".")) or _QUANTITY.fullmatch(content)))
            or (self.tokens and (content == "i" or (self.tokens[-1].kind == "number" and content in _VARIABLES)))
            or (re.fullmatch("[0-9A-Z]+", content) and self.text[end + 1 : end + 2] in _AFTER_DIGITS)
        ):
            self.tokens.extend(Tokenizer(content.rstrip(".")).run())
        else:
            self._add("text", content)

    def _word(self) -> None:
        match = _WORD.match(self.text, self.position)
        assert match is not None
        self.position = match.end()
        word = match[0]
        if word[0] == "d" and (derivative := _DERIVATIVE.match(self.text, match.start())):
            self._add("letter", derivative_name("d" + derivative[1], "d" + derivative[2]))
            self.position = derivative.end()
            return
        lower = word.lower()
        follows_number = self.tokens and self.tokens[-1].kind == "number"
        is_time = lower in ("min", "sec") and follows_number and not _ARGUMENT.match(self.text, self.position)
        if lower in FUNCTIONS and not is_time:
            self._add("function", lower)
            if lower == "log" and (base := _BASE_OF_LOGARITHM.match(self.text, self.position)):  # log2(8), as in code
                self._add("mark", "_")
                self._add("number", base[0])
                self.position = base.end()
        elif lower in PLAIN_WORDS:
            if lower in MARKS:
                self._mark(MARKS[lower], 0)
            else:
                self._add("letter", LETTERS[lower if word not in LETTERS or lower == "pi" else word])
        elif word == "mod":
            self._add("mark", "mod")
        elif len(word) >= 3 or word in SHORT_UNITS or (len(word) > 1 and not word.isascii()):
            self._add("word", word)
        else:
            for letter in word:
                self._add("letter", letter)
            if index := _INDEX.match(self.text, self.position):  # x2 is x_2
                self._add("mark", "_")
                self._add("number", index[0])
                self.position = index.end()

    def _mark(self, mark: str, length: int = 1) -> None:
        if length and (double := _TWO_CHARACTER_MARKS.get(self.text[self.position : self.position + 2])):
            mark, length = double, 2
        self.position += length
        mark = SIGN_OF_CHARACTER.get(mark, mark)
        if mark in "([⦃⟨":
            self.bracket_depth += 1
        elif mark in ")]⦄⟩":
            self.bracket_depth = max(0, self.bracket_depth - 1)
        self._add("letter" if mark in "ℝ∅∞∠△□¬" else "mark", mark)
