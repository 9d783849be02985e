r"""What an answer says around its value: remarks and conditions after it, a sentence or a label before it.

Remarks that only explain are dropped. A condition on the domain of a letter becomes an item of its own, written
``k \in \mathbb{Z}``, so that all ways of saying it are one; a condition that is a relation is separated by a comma.
All of this works on text, because the words and the value may share one ``\text{}``.
"""

import re
from collections.abc import Iterator

_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf|tt|up)?|emph|mbox|hbox|mathrm)\s*\{|\\[,;:! ]|\\q?quad\b|[{}~$]"
)
_TEXT_OR_SPACE = re.compile(r"\\(?:text(?:bf|it|rm|normal|sf|tt|up)?|emph|mbox|hbox)\s*\{|\\[,;:! ]|\\q?quad\b|[~$]")
_OPENS_TEXT = re.compile(r"(?:\\(?:text\w*|emph|mbox|hbox|mathrm|left|q?quad)|\\[,;: ]?)$")
_GLUE = " \t\n,;:(~{"

_SPOKEN = re.compile(
    r"\b(?:for|where|wherever|with|when|whenever|if|since|because|provided|such that|as|in total|in all|altogether|"
    r"overall|respectively|that is|which|approx\w*|about|roughly|rounded|exactly|nearest|i\.e|integers?|"
    r"constants?|arbitrary|real|mod)\b"
    r"|\\forall|∀|≈|\\approx|\(\s*or\b",
    re.IGNORECASE,
)
_REMARK = re.compile(
    r"\b(?:since|because|as (?:required|desired|needed|claimed|expected|wanted|stated|given)|in total|in all|"
    r"altogether|overall|respectively|that is|i\.e|which (?:is|are|means|gives|equals))\b|\\because\b"
    r"|\bor (?:about|approximately|roughly|nearly)\b"
    r"|(?<=\()\s*(?:approx|about|roughly|rounded|exactly|nearest|to the nearest|or\b|≈|\\approx\b)",
    re.IGNORECASE,
)
_MODULUS = re.compile(r"\(\s*(?:\\text\w*\s*\{\s*)?\\?mod\b\s*\}?\s*\{?\w+\}?\s*\)\s*\}?")
_CONDITION = re.compile(
    r"\b(?:for|where|wherever|with|when|whenever|if|provided(?: that)?|such that|assuming(?: that)?)\b|\\forall\b|∀",
    re.IGNORECASE,
)
_LETTER = r"(?:\\[a-z]+|[A-Za-z])(?:_\{?\w+\}?)?"
_LETTERS = rf"(?P<letters>{_LETTER}(?:\s*(?:,|and)\s*{_LETTER})*)"
_DOMAIN = (
    r"(?P<domain>positive integer|negative integer|non-?negative integer|natural|whole|integer|integral|rational|real|"
    r"complex|constant|arbitrary|positive real|negative real|nonzero real)s?(?: (?:number|value|constant)s?)*"
)
_ALL = r"(?:all|any|every|each|some|an?|arbitrary|the)?\s*"
_DOMAIN_THEN_LETTERS = re.compile(rf"{_ALL}{_DOMAIN}(?: of)?(?:\s+{_LETTERS})?", re.IGNORECASE)
_LETTERS_THEN_DOMAIN = re.compile(
    rf"{_ALL}{_LETTERS}\s+(?:is|are|be|being|can be|denotes?|=)?\s*{_ALL}{_DOMAIN}", re.IGNORECASE
)
_LETTERS_ALONE = re.compile(rf"{_ALL}(?:values? of )?{_LETTERS}", re.IGNORECASE)
_RELATION = re.compile(r"[=<>≤≥≠∈]|\\(?:leq?|geq?|neq?|in|lt|gt|leqslant|geqslant)\b")
_QUANTIFIER = re.compile(r"^(?:all|any|every|each|some|which)\s+", re.IGNORECASE)
_LETTERS_IN = re.compile(rf"{_LETTERS}\s*(?P<domain>(?:\\in\b|∈).*)", re.DOTALL)
#: Domains that say nothing new are dropped.
_SIGN_OF_DOMAIN = {
    "integer": r"\mathbb{Z}",
    "integral": r"\mathbb{Z}",
    "whole": r"\mathbb{Z}",
    "positive integer": r"\mathbb{Z}_{+}",
    "natural": r"\mathbb{N}",
    "rational": r"\mathbb{Q}",
    "complex": r"\mathbb{C}",
}
_DROPPED_DOMAINS = frozenset(("real", "constant", "arbitrary"))
_UNSAID_CONDITION = re.compile(
    r"[,(;](?:\\q?quad|\\[,;: ]|\\text\w*\s*\{|[\s}$(])*(?P<tail>\\?[A-Za-z](?:_\w)?(?:\}|\s|\$|\\text\w*\s*\{)+"
    r"(?:is|are|an?|any|arbitrary|integers?|real|constant)\b.*)$",
    re.IGNORECASE | re.DOTALL,
)


def plain(text: str) -> str:
    r"""The text without ``\text{}``, braces, dollar signs and LaTeX spaces.

    >>> plain(r"\text{for all }x\text{ in }A")
    'for all x in A'
    """
    return " ".join(_TEXT_COMMAND.sub(" ", text).split())


def _unwrapped(text: str) -> str:
    r"""The text without ``\text{}`` and LaTeX spaces, but with the braces of mathematics."""
    return " ".join(_balanced(_TEXT_OR_SPACE.sub(" ", text)).split())


def without_remarks(text: str) -> str:
    r"""The answer without what only explains it, and with its conditions as items of a list.

    >>> without_remarks(r"12 \text{ (since } x>0)"), without_remarks("2k, where k is any integer")
    ('12', '2k, k \\in \\mathbb{Z}')
    """
    if not _SPOKEN.search(text) or r"\begin" in text:
        return text
    if (remark := _REMARK.search(text)) and not _goes_on(text, remark.start()):
        text = _head(text[: remark.start()]) or text
    text = _head(_MODULUS.sub(" ", text)) or text
    condition = _CONDITION.search(text)
    if condition is None:
        condition = _UNSAID_CONDITION.search(text)
        start, tail = (condition.start(), condition["tail"]) if condition else (0, "")
    else:
        start, tail = condition.start(), text[condition.end() :]
    head = _head(text[:start])
    if condition is None or not head:
        return text
    is_for_all = condition[0].casefold() in ("for", r"\forall", "∀")
    tail = _unwrapped(tail).strip(" .,")
    said = _condition(tail[:-1].strip() if tail.count(")") > tail.count("(") else tail, is_for_all)
    return text if said is None else f"{head}, {said}" if said else head


def _goes_on(text: str, start: int) -> bool:
    """Whether mathematics follows the bracket in which a remark stands."""
    opening = text.rfind("(", 0, start)
    closing = text.find(")", start)
    is_inside = opening > text.rfind(")", 0, start) and closing > 0
    return is_inside and re.match(r"[\s}]*[-+*/^=]", text[closing + 1 :]) is not None


def _condition(tail: str, is_for_all: bool) -> str | None:
    """The condition in signs. Empty: it says nothing. None: not understood."""
    match = _DOMAIN_THEN_LETTERS.fullmatch(tail) or _LETTERS_THEN_DOMAIN.fullmatch(tail)
    if match is None:
        if is_for_all and _LETTERS_ALONE.fullmatch(tail):
            return ""
        return _relation(tail)
    domain = match["domain"].lower()
    if domain in _DROPPED_DOMAINS:
        return ""
    sign = _SIGN_OF_DOMAIN.get(domain)
    if sign is None or not match["letters"]:
        return None
    return ", ".join(rf"{letter} \in {sign}" for letter in re.split(r"\s*(?:,|\band\b)\s*", match["letters"]))


def _relation(tail: str) -> str | None:
    r"""A condition in signs, once for each letter of "all a, b \in R"."""
    tail = _QUANTIFIER.sub("", tail)
    if match := _LETTERS_IN.fullmatch(tail):
        return ", ".join(f"{letter} {match['domain']}" for letter in re.split(r"\s*(?:,|\band\b)\s*", match["letters"]))
    return tail if _RELATION.search(tail) else None


def _head(text: str) -> str:
    """The text before a remark, without what led to the remark, and with its braces closed."""
    while True:
        shorter = _OPENS_TEXT.sub("", text.rstrip(_GLUE))
        if shorter == text:
            return _balanced(text)
        text = shorter


def _balanced(text: str) -> str:
    """The text without closing braces that close nothing, and with the missing ones."""
    if "{" not in text and "}" not in text:
        return text
    kept: list[str] = []
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            depth = 0
        else:
            kept.append(character)
    return "".join(kept) + "}" * depth


# ---------------------------------------------------------------------------------------------- sentences and labels

_ANSWER_WORDS = (
    r"(?:final |correct |required |desired |only |our |right )*(?:answers?|ans|results?|solutions?|options?|choices?)"
)
_LABEL = re.compile(
    rf"(?:\\text\w*\s*\{{\s*)?(?:the )?{_ANSWER_WORDS}(?: is| are)?\s*\}}?\s*[:：]\s*\}}?(?=.)",
    re.IGNORECASE | re.DOTALL,
)
_NAME_AND_COLON = re.compile(
    r"(?:\\text\w*\s*\{\s*)?(?![A-Z]+\b)(?=[A-Za-z]*[aeiouAEIOU])[A-Za-z]{3,}"
    r"(?: (?![A-J]:)[A-Za-z]+){0,5}\s*:\s+(?=[^\s:])"
)
_SAYS_ANSWER = re.compile(
    rf"(?:so |thus |hence |therefore |then )?,? ?(?:(?:the|our|my) {_ANSWER_WORDS}|{_ANSWER_WORDS}|it|there)",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"(?<=[\s}])(?:is|are|was|were|has|have|costs|equals?|will be|becomes)(?=[\s{}\\$:])"
    r"(?:\s*(?:equal\s+to|exactly|:))?"
)
_NOT_A_SUBJECT = re.compile(
    r"\b(?:is|are|equals?|has|have|=)\s*[-\d\\$]|\d\s*(?:,|;|\band\b)|[=<>≤≥]|\bif\b", re.IGNORECASE
)
_IS_THE_ANSWER = re.compile(
    rf"(?:\\text\w*\s*\{{|[\s,~{{])*\b(?:is|are) (?:the |our |my )?{_ANSWER_WORDS}[\s}}.]*$", re.IGNORECASE
)
_MARKER = re.compile(r"(?:\\(?:therefore|Rightarrow|implies|Longrightarrow|sim\s*(?=[-+.\d]))(?![A-Za-z])|[∴⇒⟹]|=>)\s*")
_CONCLUSION = re.compile(
    r"(?:\\text\w*\s*\{\s*)?(?:so|thus|hence|therefore|then|finally|in conclusion|equals|"
    r"(?:we|which|this|this means|it) (?:gets?|have|finds?|obtains?|gives?|equals)(?: that)?)\b"
    r"(?:[\s,:}]|\\[ ,])+(?=[^\s=])",
    re.IGNORECASE,
)
_IMPLIES = re.compile(r"\\(?:Rightarrow|implies|Longrightarrow)(?![A-Za-z])|[⇒⟹]|=>")
_MAX_VERBS = 8


def without_label(text: str) -> str:
    r"""The answer without a label or a sign of conclusion before it.

    >>> without_label(r"\text{Final Answer: } 42"), without_label(r"2x = 6 \Rightarrow x = 3")
    ('42', 'x = 3')
    """
    if marker := _MARKER.match(text):
        text = text[marker.end() :]
    if conclusion := _CONCLUSION.match(text):
        text = _balanced(text[conclusion.end() :])
    if "=" in text and (parts := _IMPLIES.split(text))[1:] and all("=" in part for part in parts):
        text = parts[-1].strip()
    if ":" in text or "：" in text:
        label = _LABEL.match(text) or _NAME_AND_COLON.match(text)
        if label is not None:
            text = _balanced(text[label.end() :]).strip() or text
    if "is" in text or "are" in text:
        text = _balanced(_IS_THE_ANSWER.sub("", text)) or text
    return text


def values_said(text: str) -> Iterator[tuple[str, bool]]:
    """What follows the verb of a sentence, the last verb first, and whether this certainly is the answer.

    >>> list(values_said("the radius of the circle is 5"))
    [('5', False)]
    """
    for verb in list(_VERB.finditer(text))[: -_MAX_VERBS - 1 : -1]:
        subject = plain(text[: verb.start()]).strip(" ,")
        value = _balanced(text[verb.end() :]).strip(" :")
        if value and subject and not _NOT_A_SUBJECT.search(subject):
            yield value, _SAYS_ANSWER.fullmatch(subject) is not None


# ------------------------------------------------------------------------------------------------------ sets in words

_KIND_OF_REALS = re.compile(
    r"(?:x (?:is|can be) )?(?:the )?(?:set of )?(?:all |any |every )?(?:(?P<kind>positive|negative|non-?negative|"
    r"non-?positive|non-?zero) )?(?:real numbers?|reals|real values(?: of x)?|real x)(?: x)?(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_EXCEPT = re.compile(
    r"\s*,?\s*(?:\(?(?:except|excluding|other than|besides|but(?: not)?|apart from|not equal to|different from|"
    r"not including)(?: for)?|\\setminus|\\neq?|≠)\s*",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    r"\s*(?:that are |which are )?(?P<sign>greater than or equal to|less than or equal to|greater than|less than|"
    r"at least|at most|not less than|not greater than|more than|above|below) (?P<bound>[^,]+)",
    re.IGNORECASE,
)
_KINDS = {
    "positive": r"(0,\infty)",
    "negative": r"(-\infty,0)",
    "nonnegative": r"[0,\infty)",
    "nonpositive": r"(-\infty,0]",
    "nonzero": r"(-\infty,0)\cup(0,\infty)",
}
_BOUNDED = {
    "greater than": r"({},\infty)",
    "more than": r"({},\infty)",
    "above": r"({},\infty)",
    "less than": r"(-\infty,{})",
    "below": r"(-\infty,{})",
    "greater than or equal to": r"[{},\infty)",
    "at least": r"[{},\infty)",
    "not less than": r"[{},\infty)",
    "less than or equal to": r"(-\infty,{}]",
    "at most": r"(-\infty,{}]",
    "not greater than": r"(-\infty,{}]",
}
_NAMED = re.compile(r"^[a-z]\s*=\s*|(?<=[,\s])[a-z]\s*=\s*")


def set_in_words(text: str) -> str:
    r"""Sets of real numbers in words become signs; any other text is unchanged.

    >>> set_in_words("all real numbers except 2"), set_in_words("all positive real numbers")
    ('\\mathbb{R}\\setminus\\{2\\}', '(0,\\infty)')
    """
    if "real" not in text and "Real" not in text:
        return text
    match = _KIND_OF_REALS.fullmatch(_unwrapped(text.replace(r"\{", " ").replace(r"\}", " ")))
    if match is None:
        return text
    kind, rest = (match["kind"] or "").lower().replace("-", ""), match["rest"]
    whole = _KINDS.get(kind, r"\mathbb{R}")
    if not rest.strip():
        return whole
    if removed := _EXCEPT.match(rest):
        values = _NAMED.sub("", re.sub(r"\s+(?:and|or)\s+", ",", rest[removed.end() :].strip(" )")))
        return rf"{whole}\setminus\{{{values}\}}" if values else text
    if not kind and (compared := _COMPARED.fullmatch(rest)):
        return _BOUNDED[compared["sign"].lower()].format(compared["bound"].strip())
    return text
