r"""Notations of which each has another, plainer spelling: the answer is rewritten before it is split into tokens.

Each function takes and returns the text of an answer. A cheap test comes first, since most answers have none of these.
"""

import re

from east_ray.answers.announcements import JOINS

_MAX_CHARS = 4000  # longer answers are not read as mathematics
_MAX_PERIOD = 100  # digits of a period that is found by its repetition
_BASE_NAMES = "two three four five six seven eight nine ten eleven twelve"
_NUMBER_OF_BASE = {name: value for value, name in enumerate(_BASE_NAMES.split(), start=2)} | {"sixteen": 16}

#: Space and labels, which have an argument.
_INVISIBLE = re.compile(
    r"\\(?:[hv]?phantom|[hv]space\*?|label|tag\*?)\s*\{[^{}]*\}|\\(?:checkmark|blacksquare|qed|qedsymbol)(?![A-Za-z])|(?<![\s,;=+*/(-])(?:\\q?quad|\s)+\\(?:square|Box)\s*$"
    r"|\\(?:hskip|vskip|m?kern|mskip)\s*-?[\d.]+\s*[a-z]{2}"
)
_TRANSPOSE = re.compile(
    r"\^\s*(?:\{\s*\\(?:mathrm|text|mathsf|textrm)\s*\{\s*T\s*\}\s*\}|\\(?:mathrm|text|mathsf)\s*\{\s*T\s*\}"
    r"|\{?\s*\\(?:intercal|top)(?![A-Za-z])\s*\}?)"
)
_DECIMAL_COMMA = re.compile(r"(?<![\d,}])(\d+) ?\{ ?, ?\} ?(\d+)(?![\d{]| ?\{ ?,)")
_APOSTROPHE_GROUPS = re.compile(r"(?<![\d.,'])\d{1,3}(?:'\d{3})+(?![\d'])")
_POINT_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.,])")
_POINTS_AND_COMMA = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:\.\d{3})+),(\d\d)(?![\d.,])")
_BRACKET = frozenset("([{")
_LOW_LINE_GROUPS = re.compile(r"(?<![\w.])\d{1,3}(?:_\d{3})+(?!\w)")
#: A group that begins with 0 is no member of a list, 1,00,000 and 10, 000, but for lists of codes: 110, 011.
_UNUSUAL_GROUPS = re.compile(
    r"(?<![\d.,])(?<!\d, )(?!0|[01]{3}(?:, [01]{3})+(?!\d))(?=[\d, ]*, ?0\d)"
    r"(?:\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:, \d{3})+)(?![\d,]|\.\d)"
)

_ELLIPSIS = r"\s*(?:\.\.\.+|…|\\[lc]?dots\b)"
_REPEATED_DIGITS = re.compile(rf"(?<![\d.])(\d*)\.(\d{{3,200}}){_ELLIPSIS}(?!\s*[\d,+])")
_AFTER_PERIOD = re.compile(rf"(\\(?:overline|bar)\s*\{{\d+\}}){_ELLIPSIS}")
_DOTTED_PERIOD = re.compile(r"\\dot\s*(?:\{(\d)\}|(\d))(\d*)\\dot\s*(?:\{(\d)\}|(\d))")
_MARKED_PERIOD = re.compile("(?:\\d[\u0304\u0305])+|\\d\u0307(?:\\d*\\d\u0307)?")
_BRACKETED_PERIOD = re.compile(r"(?<![\d.])(\d*\.)\((\d+)\)(?![\d(^])|^(-?\d*\.\d+)\((\d+)\)$")

_SIGN_AS_TEXT = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname)\s*\{[\s~]*([-+])[\s~]*\}")
_SIGN_IN_WORDS = re.compile(
    r"^((?:\\(?:text\w*|mathrm|mbox)\s*\{\s*)?)(?:negative|minus)[\s~]*(\}?)[\s~$]*(?=[\d.\\])", re.IGNORECASE
)
_PLUS_OR_MINUS = re.compile(r"\+\s*/\s*-")
_JOINS = re.compile(
    rf"(?<=[\d)}}\]])(?P<opening>\s*\\text\w*\s*\{{)?\s{{0,4}}(?P<word>{JOINS})\s{{0,4}}(?(opening)\}})\s{{0,4}}"
    r"(?=(?P<certain>\d|[A-Za-z]\w?\s?=)|-?\.?\d|[\\(√π]|-?[A-Za-z]\w?\s?=)"
)
_VALUE_OF_NAME = re.compile(r"(?:^|[,;\s])([A-Za-z])\s?=\s?-?[\d./]+\Z")
_NUMBER_AS_TEXT = re.compile(r"(?<=\{)\\text\{\s*(\d+(?:\.\d+)?)\s*\}(?=\})")
_AMPERSAND = re.compile(r"(?<=[\d\w}) ])\s*(?:\\&|(?<=\s)&(?=\s))\s*(?=[-+\d\w\\$])")
_RATIO_IN_WORDS = re.compile(
    r"\s*(?:\\text\w*\s*\{\s*)?(\d+)[\s~]*(?:\\text\w*\s*\{[\s~]*)?to\b[\s~]*\}?[\s~]*(\d+)\s*\}?\s*"
)
_AND_SO_ON = re.compile(r"(?<=,)\s*(?:\.\.\.+|…)")
_FLAT_POWER = re.compile(r"(?<=\d)(\s*(?:[ckmd]m|ft|yd)|\s+m)([23])(?!\w)")
_ROOT_OF = re.compile(r"\\root\s*(?:\{([^{}]{1,20})\}|(\w))\s*\\of(?![A-Za-z])")
_DEGREES = re.compile(r"(?<=\d)\s*\^\s*(?:o(?![A-Za-z])|\{\s*(?:\\(?:text\w*|mathrm)\s*\{\s*o\s*\}|o)\s*\})")
_WITHOUT_POINTS = re.compile(r"(?:(?:\\mathbb\s*\{\s*R\s*\}|\\mathbb\s*R|ℝ|^R)\s*)\\(?= ?\{) ?\{([^{}\\]+)\}$")

_INDEX = r"(?:\{\s*([^{}]{1,12}?)\s*\}|(\w))"
_CHOSEN = r"(?:\\(?:mathrm|text)\s*\{\s*([CP])\s*\}|([CP]))"
_LEFT_CHOICE = re.compile(rf"(?:\{{\}}\s*|(?<![A-Za-z0-9)}}\]]))[_^]\s*{_INDEX}\s*{_CHOSEN}\s*_\s*{_INDEX}")
_RIGHT_CHOICE = re.compile(
    r"(?<![A-Za-z\\])(?:\\(?:mathrm|text)\s*\{\s*([CPA])\s*\}|([CPA]))\s*"
    r"(?:_\s*(?:\{(\d+)\}|(\d))\s*\^\s*(?:\{(\d+)\}|(\d))|\^\s*(?:\{(\d+)\}|(\d))\s*_\s*(?:\{(\d+)\}|(\d)))"
)

_BASE_NAME = "|".join(_NUMBER_OF_BASE)
_TEXT = r"\\(?:text|mathrm|textrm|mbox)\s*\{\s*"
_BASE = rf"(\d{{1,2}}|{_BASE_NAME})"
_BASE_INDEX = re.compile(
    rf"(?<=[0-9A-F)])_\s*(?:\{{\s*{_TEXT}(?:base\s*)?\(?{_BASE}\)?\s*\}}\s*\}}|\{{\s*{_TEXT}base\s*\}}\s*{_BASE}\s*\}}"
    rf"|\{{?\s*\({_BASE}\)\s*\}}?|{_TEXT}{_BASE}\s*\}}|\{{\s*({_BASE_NAME})\s*\}}|({_BASE_NAME})\b)",
    re.IGNORECASE,
)
_BASE_IN_WORDS = re.compile(
    rf"\b([0-9A-F]+(?:\.[0-9A-F]+)?)\s*(?:\\text\w*\s*\{{)?[\s,(~]*(?:in\s+)?base[\s-]*\}}?[\s~$]*"
    rf"(?:\\text\w*\s*\{{)?\{{?(\d{{1,2}}|{_BASE_NAME})\b\}}?\)?\}}?"
)

_BLACKBOARD = r"\\mathbb\s*(?:\{\s*[A-Z]\s*\}|[A-Z])(?:\s*[_^]\s*(?:\{[^{}]*\}|[-+*\d]))?|[ℕℤℚℝℂ]"
_LETTERS_IN_DOMAIN = re.compile(
    rf"(?:(?<=[,;(])|(?<=[,;(] )|(?<=for ))([a-zA-Z](?:_\w)?)\s*,\s*([a-zA-Z](?:_\w)?)\s*(?:\\in\b|∈)\s*({_BLACKBOARD})"
)
_BRACKETED_DOMAIN = re.compile(
    r"(?:\\left)?\(\s*([a-zA-Z](?:_\w)?(?:\s*,\s*[a-zA-Z])*"
    rf"\s*(?:\\in\b|∈)\s*(?:{_BLACKBOARD}))\s*(?:\\right)?\)$"
)
_SUCH_THAT = re.compile(r"\\mid(?![A-Za-z])|\\vert(?![A-Za-z])|\\?\||:")
_LETTER_IN_DOMAIN = re.compile(rf"\s*[a-zA-Z](?:_\w)?\s*(?:\\in\b|∈)\s*(?:{_BLACKBOARD})\s*")
_WHOLE_NUMBERS = re.compile(
    r"(?:\\mathbb\s*(?:\{\s*Z\s*\}|Z)|ℤ)\s*(?:\^\s*(?:\{\s*\+\s*\}|\+(?!\s*[\da-z(]))|_\s*\{\s*(?:>\s*0|\\geq?\s*1|≥\s*1)\s*\})"
)
_DEFINITE = re.compile(
    r"(\\int(?:\\limits)?\s*_\s*(?:\{[^{}]*\}|\\?\w+?)\s*\^\s*(?:\{[^{}]*\}|\\[a-z]+|\w))(.{1,200}?)"
    r"(?:\\[,;:! ]|\s)*(?:\\(?:mathrm|text)\s*\{\s*d\s*\}|(?<!\\)(?<![b-zA-Z]{2})d)\s*([a-z])(?![a-z])"
)
_RUNS = re.compile(r"\\[A-Za-z]+|[A-Za-z]+")
_BOUND = "ʋ"  # the letter of integration

_REALS = r"(?:\\mathbb\s*(?:\{\s*R\s*\}|R)|ℝ|\\R\b|\\Reals\b)"
_PART_OF_REALS = re.compile(
    rf"{_REALS}\s*(?:\^\s*(?:\{{\s*([-+*])\s*\}}|([-+*])(?![\s\d(]*[\d(a-z]))"
    r"|_\s*\{\s*(>|<|\\geq?q?|\\leq?q?|\\geqslant|\\leqslant|≥|≤|\\neq?|≠)\s*0\s*\})"
)
_PARTS = {
    "+": r"(0,\infty)",
    "-": r"(-\infty,0)",
    "*": r"(-\infty,0)\cup(0,\infty)",
    ">": r"(0,\infty)",
    "<": r"(-\infty,0)",
    "≥": r"[0,\infty)",
    "≤": r"(-\infty,0]",
    "≠": r"(-\infty,0)\cup(0,\infty)",
}


def rewritten(text: str) -> str:
    r"""The answer in plainer notation.

    >>> rewritten("1'234'567"), rewritten("0.1818...".replace("1818", "181818")), rewritten(r"{}_{10}C_{3}")
    ('1234567', '0.\\overline{18}', '\\binom{10}{3}')
    """
    if len(text) > _MAX_CHARS:
        return text
    text = without_part_labels(_with_plain_signs(text))
    if "{" in text:
        text = _DECIMAL_COMMA.sub(_with_decimal_point, text)
    if "'" in text:
        text = _APOSTROPHE_GROUPS.sub(lambda match: match[0].replace("'", ""), text)
        text = text.strip()
        if len(text) > 2 and text[0] == text[-1] == "'" and "'" not in text[1:-1]:
            text = text[1:-1]
    if "." in text:
        text = _with_period(text)
    if "C" in text or "P" in text or "A" in text:
        text = _RIGHT_CHOICE.sub(_choice_after, _LEFT_CHOICE.sub(_choice_between, text))
    if "_" in text:
        text = _LOW_LINE_GROUPS.sub(lambda match: match[0].replace("_", ""), text)
        text = _BASE_INDEX.sub(lambda match: f"_{{{_base(next(filter(None, match.groups())))}}}", text)
    if "base" in text:
        text = _BASE_IN_WORDS.sub(lambda match: f"{match[1]}_{{{_base(match[2])}}}", text)
    if "R" in text or "ℝ" in text:
        text = _PART_OF_REALS.sub(_part_of_reals, text)
    if r"\in" in text or "∈" in text:
        text = _with_domains(text)
    return _lines(text) if "\n" in text and r"\begin" not in text else text


# ------------------------------------------------------------------------------------------------ parts of a question

_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}
_PART_NAMES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_NO_SINGLE_VALUE = re.compile(r"[,;=<>≤≥≠∈]|\\(?:leq?|geq?|neq?|in|lt|gt|and|or|text)(?![A-Za-z])|\b(?:and|or)\b")
_PART_LABEL = re.compile(
    r"(?:^|[,;，；]\s*(?:and\s+)?|\n\s*|\\q?quad\s*|\\\\\s*|\s+(?=\(?[a-h]\)))"
    r"(?:\\text\w*\s*\{\s*)?\(?(?P<label>[a-h1-8]|i{1,3}|iv|vi?)\)\s*\}?\s*"
)
_OPERATION = re.compile(r"^[-+*/^=]\s|[-+*/^=({]$|^$")


def without_part_labels(text: str) -> str:
    """The answers to the parts of a question without (a), (b), or 1), 2), before them, as a list of values with names.

    >>> without_part_labels("(a) x > 5, (b) 6"), without_part_labels("(1) + (2)")
    ('x > 5, 6', '(1) + (2)')
    """
    if ")" not in text[:40]:
        return text
    labels = list(_PART_LABEL.finditer(text))
    numbers = [number_of_part(label["label"]) for label in labels]
    if len(labels) < 2 or labels[0].start() or numbers != list(range(1, len(labels) + 1)):
        return text
    ends = [*(label.start() for label in labels[1:]), len(text)]
    parts = [text[label.end() : end].strip(" ,;") for label, end in zip(labels, ends, strict=True)]
    if any(map(_OPERATION.search, parts)):
        return text
    if not any(map(_NO_SINGLE_VALUE.search, parts)):  # which value is that of which part counts
        parts = [rf"\text{{{name} part}} = {part}" for name, part in zip(_PART_NAMES, parts, strict=False)]
    return ", ".join(parts)


def number_of_part(label: str) -> int:
    """The number of a part by its label in lower case: 2 of "2", "b" and "ii"."""
    return int(label) if label.isdecimal() else _ROMAN.get(label) or ord(label) - ord("a") + 1


# ------------------------------------------------------------------------------------------- signs and groups of digits


def _with_or(join: re.Match[str]) -> str:
    """The English word for "or" of any language. A single letter may be a factor: 2 i \\sqrt{3}."""
    word = join["word"]
    is_certain = join["certain"] is not None or len(word) > 1 or not word.isascii()
    if len(word) == 1 and word.isascii() and not (join["certain"] or "0").isdecimal():  # x = 2 o x = 3, not 2 a x = 3
        before = _VALUE_OF_NAME.search(join.string, 0, join.start())
        is_certain = before is not None and before[1] == join["certain"][0]
    return join[0] if word in ("and", "or") or not is_certain else " or "


def _with_plain_signs(text: str) -> str:
    """The answer with signs in place of their names and of commands around them, and without unusual digit grouping."""
    text = _JOINS.sub(_with_or, text) if " " in text or not text.isascii() else text
    if "gativ" in text or "inus" in text:
        text = _SIGN_IN_WORDS.sub(r"\1\2-", text)
    if "\\" in text:
        text = _INVISIBLE.sub(" ", _TRANSPOSE.sub("^{T}", text))
        text = _NUMBER_AS_TEXT.sub(r"\1", text)
        text = _SIGN_AS_TEXT.sub(r"\1", _ROOT_OF.sub(lambda match: rf"\sqrt[{match[1] or match[2]}]", text))
        text = _WITHOUT_POINTS.sub(r"\\mathbb{R}\\setminus\\{\1\\}", text)
    if "^" in text:
        text = _DEGREES.sub(r"^\\circ", text)
    if "/" in text:
        text = _PLUS_OR_MINUS.sub(r"\\pm ", text)
    if "&" in text and r"\begin" not in text:
        text = _AMPERSAND.sub(" and ", text)
    if "to" in text and (ratio := _RATIO_IN_WORDS.fullmatch(text)):
        text = f"{ratio[1]}/{ratio[2]}"
    if ".." in text or "…" in text:
        text = _AND_SO_ON.sub(r"\\ldots ", text)
    if "m" in text or "t" in text or "d" in text:
        text = _FLAT_POWER.sub(r"\\text{\1}^\2", text)
    text = text.replace("{:}", ":")
    if (",0" in text or ", 0" in text) and _BRACKET.isdisjoint(text):
        text = _UNUSUAL_GROUPS.sub(lambda match: re.sub("[, ]", "", match[0]), text)
    return text


def _with_decimal_point(match: re.Match[str]) -> str:
    """``3{,}5`` is 3.5, while ``3{,}500`` is 3500; ``0{,}125`` is 0.125."""
    whole, decimals = match[1], match[2]
    return f"{whole}.{decimals}" if len(decimals) != 3 or whole.startswith("0") else match[0]


def _base(name: str) -> str:
    return str(_NUMBER_OF_BASE.get(name.lower(), name))


# ------------------------------------------------------------------------------------------------ repeating decimals


def _with_period(text: str) -> str:
    """Every way of writing a period becomes a line over it."""
    text = _POINT_GROUPS.sub(lambda match: match[0].replace(".", ""), text)
    if "," in text and _BRACKET.isdisjoint(text):
        text = _POINTS_AND_COMMA.sub(lambda match: f"{match[1].replace('.', '')}.{match[2]}", text)
    if "..." in text or "…" in text or "dots" in text:
        text = _REPEATED_DIGITS.sub(_with_found_period, _AFTER_PERIOD.sub(r"\1", text))
    if r"\dot" in text:
        text = _DOTTED_PERIOD.sub(lambda match: rf"\overline{{{''.join(part or '' for part in match.groups())}}}", text)
    if not text.isascii():
        text = _MARKED_PERIOD.sub(lambda match: rf"\overline{{{re.sub('[^0-9]', '', match[0])}}}", text)
    return _BRACKETED_PERIOD.sub(lambda m: rf"{m[1] or m[3]}\overline{{{m[2] or m[4]}}}", text) if "(" in text else text


def _with_found_period(match: re.Match[str]) -> str:
    """0.1666… has the period 6. The digits must show the period three times, or be nothing else than it twice."""
    whole, digits = match[1] or "0", match[2]
    for length in range(1, min(_MAX_PERIOD, len(digits) // 2) + 1):
        period = digits[-length:]
        if not period.strip("0"):
            continue
        is_all = length > 1 and len(digits) % length == 0 and digits == period * (len(digits) // length)
        if is_all or digits.endswith(period * 3):
            rest = digits
            while rest.endswith(period):
                rest = rest[:-length]
            return rf"{whole}.{rest}\overline{{{period}}}"
    return match[0]


# ------------------------------------------------------------------------------------------------------- other signs


def _choice_between(match: re.Match[str]) -> str:
    first, second = match[1] or match[2], match[5] or match[6]
    return _chosen(match[3] or match[4], first, second)


def _choice_after(match: re.Match[str]) -> str:
    """``C_{10}^{3}``, where both are numbers and the lower one is not the smaller; C_2^3 is a power."""
    lower, upper = match[3] or match[4] or match[9] or match[10], match[5] or match[6] or match[7] or match[8]
    if len(lower) > 6 or len(upper) > 6 or int(lower) < int(upper):
        return match[0]
    return _chosen(match[1] or match[2], lower, upper)


def _chosen(kind: str, total: str, part: str) -> str:
    """Combinations C, or permutations P and A."""
    if kind == "C":
        return rf"\binom{{{total}}}{{{part}}}"
    return rf"(\binom{{{total}}}{{{part}}}\cdot({part})!)"


def _with_domains(text: str) -> str:
    """Domains of letters as items of a list; the letter of a definite integral gets a name of its own."""
    text = _WHOLE_NUMBERS.sub(r"\\mathbb{Z}_{+}", text)
    if text.lstrip().startswith(r"\{") and text.rstrip().endswith(r"\}"):  # {2k | k in Z}
        parts = _SUCH_THAT.split(text.strip()[2:-2])
        if len(parts) == 2 and len(parts[0].strip()) > 1 and _LETTER_IN_DOMAIN.fullmatch(parts[1]):
            text = ", ".join(parts)
    if match := _BRACKETED_DOMAIN.search(text):
        text = text[: match.start()].rstrip(" ,~;:\\") + ", " + match[1]
    text = _LETTERS_IN_DOMAIN.sub(r"\1 \\in \3, \2 \\in \3", text)
    return _DEFINITE.sub(_integral, text) if r"\int" in text else text


def _integral(match: re.Match[str]) -> str:
    bounds, body, letter = match.groups()

    def renamed(run: re.Match[str]) -> str:
        is_word = run[0][0] == "\\" or (len(run[0]) > 2 and run[0].islower())
        return run[0] if is_word else run[0].replace(letter, _BOUND)

    return f"{bounds}{_RUNS.sub(renamed, body)} d{_BOUND}"


def _part_of_reals(match: re.Match[str]) -> str:
    sign = match[1] or match[2] or match[3]
    sign = {"\\g": "≥", "\\l": "≤", "\\n": "≠"}.get(sign[:2], sign)
    return _PARTS[sign]


# ------------------------------------------------------------------------------------------------------------- lines

_BULLETS = ("- ", "* ", "• ")
_STARTS_ITEM = re.compile(r"[-+]?[\w\\(\[{√|.]")
_HAS_VALUE = re.compile(r"\d|[=<>≤≥]|^\\?[A-Za-z]+$|√|π|\\(?:frac|sqrt|pi|infty)")
_UNFINISHED = re.compile(r"(?:[-+*/=<>^_(\[{&]|\\(?:cdot|times|pm|leq?|geq?|neq?|text|and|or))$")
_WORDS_LINE = re.compile(r"[A-Za-z]{2,}$")


def _lines(text: str) -> str:
    """Lines that are each a value are a list; other line breaks are only spaces."""
    lines = [line.strip().rstrip(",;") for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(line.startswith(_BULLETS) for line in lines):
        lines = [line[2:].strip() for line in lines]
    return r" \\ ".join(lines) if len(lines) > 1 and all(map(_is_item, lines)) else text


def _is_item(line: str) -> bool:
    if not _STARTS_ITEM.match(line) or not _HAS_VALUE.search(line) or _UNFINISHED.search(line):
        return False
    return not _WORDS_LINE.match(line) and all(line.count(a) == line.count(b) for a, b in ("{}", "()"))
