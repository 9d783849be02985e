"""The value in a sentence: what stands after "the answer is", and the last value of a text.

Of a chain m+n = 256+37 = 293 the end is the value. What follows the value is left out: "12, obviously", "5, not 6".
A sentence that cannot be an answer has no value: "actually very simple", "found by adding 3 and 4", "12 is part of it".
"""

import re

from east_ray.answers.announcements import VERBS, with_english_joins

_CALCULATOR = re.compile(
    r"\$?\\boxed\{\s*\}\$?|(?<=\d)\s<<[^<>\n=]{0,60}=([\d.,]{1,30})>>\1(?!\d|\.\d)|<<[^<>\n]{0,100}>>"
)
_MARKUP_TAG = re.compile(
    r"</?(?:b|i|u|em|strong|code|mark|span|p|br|center|font|big|kbd|math|div|h[1-6])\b[^<>\n]{0,80}>", re.IGNORECASE
)
_HEDGE = re.compile(
    r"(?:(?:definitely|probably|simply|just|clearly|therefore|thus|hence|then|for\s+sure|indeed|exactly|precisely|equal\s+to"
    r"|given\s+by|approximately|roughly|around|about|only|actually|really|now|also|still|obviously|that|option|choice"
    r"|donc|entonces|portanto|quindi|dunque|daher|somit)\b"
    r"|```\w{0,10}\n|(?:(?:Rs|approx)\.?\s|R\$\s?)(?=\d)|the\s+(?:set|interval|point|pair|value|number|fraction)\s(?=[-\d({\[\\$])|[-=]{3,}\n"
    r"|\n\s{0,9}(?:[-•–][ \t]|1[.)][ \t]+(?=[-−$\\]?\.?\d[^\n]*+\s*+\Z))|both\s(?=\S{1,20}\sand\s)"
    r"|(?!\n\s{0,9}[-•–][ \t])[\s:：、，*_`#])+",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"[.?](?=\s|\*|$)|!(?=\s|\*|$)(?!\s*[-=+/^×·]|\s\*\s)(?<!\d!(?=\s(?:(?:possible|different|distinct|total)\s)?(?:ways|permutations"
    r"|arrangements|order(?:ing)?s|combinations|possibilities|outcomes|sequences|seatings|words|seconds|minutes|hours|days)\b))"
    r"(?<!\d!(?=\s(?:\((?:which|that|=|i\.e)|(?:or|which\sis|in\stotal)\b)))(?<![=!]\s\d!(?=[*_\s]*\Z))(?<![=!]\s\d\d!(?=[*_\s]*\Z))"
    r"(?<!![-+*/×·]\d!(?=[*_\s]*\Z))(?<![-+*/×·]\s\d!(?=[*_\s]*\Z))|[。।۔！】【]|\n|<(?=[|/]|[a-z]{1,10}>)"
)

# -------------------------------------------------------------------------------------------------------------- values

VALUE_START = re.compile(r"[-+−$£€¥₹(\[{.\\|√π½]|\d")
_BEGINS_WITH_VALUE = re.compile(rf"{VALUE_START.pattern}|\(?[A-H]\)?(?:\W|$)(?!\s*[a-z])|[A-Za-z]\s*=")
_NAMED_CHOICE = re.compile(
    r"(?i:(?:(?:the|la|el|le|les|die|der|das|de|den|a|o|é|letter|option|opción|opcion|opção|opzione|opció|opsi|pilihan|letra|lettre"
    r"|lettera|buchstabe|antwort|réponse|respuesta|resposta|risposta|variante?|alternativ[ae]?|choix|вариант|ответ|буква|під|варіант"
    r"|seçenek|phương\s+án|đáp\s+án)\s+|l['’]|选项|選項|项|項|選択肢|보기\s?){1,3})[*(（\"'«]*([A-H])[*)）\"'»]*(?=\W*$|[.)]?\s)"
)
"""A choice after its article or noun: "la B", "die Option C"."""
_OF_THE_CHOICES = re.compile(
    r"(?:none|all|both|neither)\s+of\s+(?:these|them|those|the\s+(?:above|(?:other|given|listed)?\s?(?:options|choices|answers)))\b",
    re.IGNORECASE,
)
_CHOICES = re.compile(r"\(?[A-H]\)?(?:(?:\s?,\s?(?:and\s)?|\sand\s|\s?&\s?)\(?[A-H]\)?)+(?=[\s,.;:]|$)")
_CHOICE = re.compile(r"\(?([A-HJ-Z]|I(?=\W*$))\)?(?=[\s,.;:)*]|[^\x00-\x7f]|$)(?!\s*[=<>×÷·≤≥≠π√])")
_CHOICE_AT_END = re.compile(r"\b(?:is|be|choose|pick|choice|option|select)\s+[*(\"']*([A-HJ-Z])[*)\"']*\W*$")
_ARTICLE = re.compile(r"[AEO]\s(?!(?:because|since|as|is|and|or|é|es|est|ist)\b)[a-z\u00df-\u024f]")
_SEVERAL_UNITS = re.compile(r"\d[\d.,]*\s?[A-Za-z]+(?:,?\s(?:and\s)?\d[\d.,]*\s?[A-Za-z]+)+")
_MATH_SPAN = re.compile(
    r"\$\$(.+?)\$\$|(?<![\\$])\$(?!\$)([^$\n]+?)(?<!\\)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]|\\begin\{(?:equation|displaymath|math)\*?\}(.+?)\\end\{\w+\*?\}|(\\begin\{.+\\end\{\w+\})",
    re.DOTALL,
)
_BETWEEN_SPANS = re.compile(r"\s*(?:[,;]\s*(?:and|or)?|and/or|or\s+else|and\s+also|&|and|or)\s+")
_NUMBER = re.compile(
    r"(?<![\w.])[-−]?\s?[$£€]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|(?:(?<![\w.)])[-−])?\d+(?:[.,]\d+)?(?:/\d+)?|(?<!\d)\.\d+"
)
_FORMULA = re.compile(
    r"(?:[-+−]?\\?\$?\d[\d,]*(?:\.\d+)?%?|(?:sqrt|pi|sin|cos|tan|ln|log|inf|oo|infinity)(?![A-Za-z])"
    r"|[A-Za-z](?![A-Za-z'’])|\\[A-Za-z]+|[-−+*/^=<>≤≥≠±()\[\]{}|!,_√π°∞∪·×÷ ]|\.(?=\d)"
    r"|(?:or|and)(?=\s+[A-Za-z]\s*[=<>≤≥]))+"
)
"""Numbers, single letters and signs up to the first word: "2 * 3 = 6" in "2 * 3 = 6 apples"."""
_COMPUTES = re.compile(r"[\w)\]}!]\s*[-−+*/^=<>≤≥≠±·×÷]\s*[\\$\w(\[{√π∞.+−-]|\d\s*(?:sqrt|pi)\b")
_IN_WORDS = re.compile(r"(?:[a-z]{2,}|[i-z])(?:[- ][a-z]+){0,3}\s+\((\d[\d,.]{0,20})\)$", re.IGNORECASE)
"""A number in words, followed by its digits: "twelve (12)"."""
_ITEM = re.compile(
    r"[ \t]*(?:(?:[-•*]|\*{0,2}\(?(?:[a-h]|i{1,3}|iv|v)\)\*{0,2})[ \t]+(?=[^\n]*[\d\\])"
    rf"|\*{{0,2}}(?:[(（]?[1-9][)）]|[1-9]\.)\*{{0,2}}[ \t]+(?={_BEGINS_WITH_VALUE.pattern})"
    r"|(?=(?:\$\$?|\\[(\[])?[ ]?(?P<unknown>[A-Za-z](?:_\{?\w\}?)?)[ \t]?=[^=\n]+(?:\n|$)))([^\n]{1,60})(?:\n+|$)"
)
"""A line of a list: "- x = 2", "(b) 3", "2. 5", or an equation of one unknown."""
_PART = re.compile(r"(?:^|[,;，；.]?\s?)[(（]([a-h]|[1-9])[)）]\s?")
_NUMBERED_STEP = re.compile(r"\d{1,2}[.)]\s+[A-Z][a-z]+\s[a-z\d$]")
_VERB_THEN_VALUE = re.compile(
    rf"(?:(?<=\s)(?:is|are|was|were|be|has|have|get|obtain|find|gives|equals?|becomes)\s{{1,4}}|(?:{VERBS})\s{{0,4}}|(?<![=<>])=\s{{1,4}})"
    r"(?:(?:at|about|approximately|exactly|only|just|both|either|thus|therefore)\s)?"
    r"(?=[-−+]?[$£€¥₹]?\.?\d|\$|\\|[√π]|[A-Za-z]\s?=)",
    re.IGNORECASE,
)
_ONE_VALUE = re.compile(rf"(?:[A-Za-z]\w?\s?=\s?)?(?:{_NUMBER.pattern})")
_QUALIFIES = re.compile(
    r"(?:\s?(?:[a-z²³°/]{1,15}|%|[\u3040-\u9fff\uac00-\ud7af]{1,6})){0,3}"
    r"(?:\s*\.?\s*$|\s(?:less|greater|more|fewer|smaller|larger|between|from|among|that|whose|to|in|of|for|per|on)\b[^,;:=]{0,80}$"
    r"|[，,]\s?(?:当|當|此时|此時|在)|[,;]?\s(?:which|attained|achieved|reached|occurring|occurs|obtained|taken|when|where|if|with\s+equality|because"
    r"|since|as\s+[$\\(]*\w|at\s+(?:the\s+point\s+)?[$\\(]*(?:[a-z]\W|\()|\((?=[A-Za-z]))|[,;]?(?:\s(?!(?:so|then|thus|hence|therefore|and|or|but|giving|gives|we|get"
    r"|implies|means|daher|also|somit|donc|alors|entonces|luego|portanto|quindi|dunque|значит|тогда)\b)[^\W\d_]+){1,4}"
    r"\s[$\\(]{0,2}[A-Za-z]\s?=)"
)
"""What may follow the value of a sentence: nothing, or where it is reached, ", attained at x = 1/2"."""
_MULTIPLIERS = (
    "[万萬億亿百千兆十半分만억천백]|тыс|млн|млрд|миллион|миллиард|мільйон|هزار|میلیون|ألف|آلاف|مليون|אלף|מיליון|हज|लाख|करोड"
    "|হাজার|লক্ষ|লাখ|কোটি|వేల|లక్ష|కోట|พัน|หมื่น|แสน|ล้าน|triệu|nghìn|tỷ|milyar|milión|milhões|миљ|χιλι|εκατομ"
)
_CLAUSE = re.compile(
    r"(?:[A-Z]\w*\s(?!and\b|or\b)[a-z]+|[a-z]\s(?:is|equals))\s(?=[$£€]?\\?\d)"
    rf"|(?!第)[\u3040-\u9fff\uac00-\ud7af](?!.*\d\s?(?:{_MULTIPLIERS}))(?=[^第]*\d)"
)
"""How a short sentence begins whose number is its value: "Josh made $70,000", "小明还剩42个苹果"."""
_SUBORDINATE = re.compile(
    r"(?:if|when|since|as|because|given|suppose|assuming|for|after|before|while|where|with)\b", re.IGNORECASE
)
_WORDS = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,} +[A-Za-z]")
"""Words between two dollar signs, as in "$3 and she spends $", show that these mark no formula."""

# ------------------------------------------------------------------------------------------------ what is no answer

_REMARK = re.compile(
    r"\s+\((?=[^()]*[A-Za-z]{2})[^()]*\)\s*$"
    r"|[,;]?\s+(?:which|so|since|because|when|where|for|if|with|as|(?<!does )(?<!do )(?<!is )(?<!are )not"
    r"|rather|instead|but|and\s+not|in\s+total|in\s+all"
    r"|total|altogether|overall|obviously|of\s+course|therefore|thus|hence|i\.e|exactly|at\s+(?:least|most)\s+I|at(?=\s[$\\(]*[a-z]\s?=))\b.*$"
    r"|\s+(?:is|are|was|has)\b(?!\s+(?:[a-z]+\s)?[-−$£€]?[\d\\$]).*$|\s+(?:and\s+(?:change|it|he|she|they|we|that|this|the|so))\b.*$"
    r"|\s+of\s+(?:them|the|an?|these|all|it)\b.*$"
    r"|(?:\s*[,;]|\s+[-–—])\s+(?:or\s+)?(?!(?:and|or|sqrt|pi|sin|cos|tan|ln|log|inf|infinity|oo)\b)[A-Za-z'’]{2,}(?!\s*[=<>(]).*$"
    r"|\s+(?:--|[|→⇒]|:\)|\[\d+\]|\$?\\blacksquare|\$?\\square|\$?\\qed|QED\b).*$|:\s+[A-Za-z]{2,}.*$|\s*[✓✔✅☑■□∎\u2600-\u27bf\U0001f300-\U0001faff].*$",
    re.DOTALL | re.IGNORECASE,
)
"""A remark that may follow the value: "5 (five)", "5, which is odd", "3/4 of a cup", "12, obviously", "12 in total"."""
_IS_THE_SUBJECT = re.compile(
    r"\s*(?:is|was|are|were|has|have|had|can|could|will|would|does|did|seems|lies|comes|goes|divides|equals)\b"
    r"(?!\s+(?:the|our|my|your|correct|right|how|what|also|indeed|obtained|found|reached|equal|required|needed|final|it)\b)",
    re.IGNORECASE,
)
"""A value that is the subject of a sentence, as in "12 is part of the sum", is not stated as the answer."""
_CALCULATES = re.compile(r"\s+(?:times\s+(?:the|as)|plus|minus|divided|multiplied|added|subtracted)\b")
_NEGATIVE = re.compile(r"^(?:negative|minus)\s(?=[\d$\\])", re.IGNORECASE)
_ASIDE = re.compile(r"(?<=[\w)%°])\s\([^()=]*=[^()]*\)$")
_AFTER_COLON = re.compile(r"[A-Za-z][^:]*:\s(?=[-+−]?[\d$\\(√π])")
_NO_ANSWER = re.compile(
    r"(?:very|quite|so|too|pretty|rather|fairly|really|simple|easy|hard|difficult|tricky|trivial|straightforward|important"
    r"|interesting|related|wrong|incorrect|correct|right|true\s+that|clear|unclear|obvious|known|unknown|expected|supposed"
    r"|found|obtained|determined|calculated|computed|derived|reached|based|rounded|shown|written|expressed|explained"
    r"|as|in|on|at|to|by|from|of|with|via|using|below|above|here|there|this|these|following|where|when|how|what|why|which"
    r"|whether|if|because|since|let|let's|lets|first|firstly|step|start|begin|given|suppose|assume|consider|notice|note"
    r"|not|the|a|always|never|often|sometimes|usually|already|likely|based|dependent|independent|either|neither|one|wait"
    r"|hmm|okay|ok|well|yes,|sure|see|look|refer|something|it|he|she|they|we|you|i|my|our|that|depends|between"
    r"|(?:greater|less|more|fewer|larger|smaller|higher|lower)\s+than|part|probably|maybe|perhaps|uncertain|unsure|ambiguous|available|needed|required|is|are)\b",
    re.IGNORECASE,
)
"""How a sentence begins that is not itself an answer."""
_ANSWER_AFTER_ALL = re.compile(
    r"(?:not|no)\s+(?:possible|defined|prime|a\s+function|enough\s+information|real|rational|continuous|solutions?|such"
    r"|integer|one|real\s+solutions?|roots?)\b|one$|one\s+(?:half|third|quarter|hundred|thousand|million)"
    r"|the\s+empty\s+set|the\s+(?:first|second|third|latter|former)$",
    re.IGNORECASE,
)
_TELLS_HOW = re.compile(
    r"(?:to|let|let's|lets|first|firstly|step|start|begin|given|suppose|assume|consider|since|because|if|found|obtained"
    r"|determined|calculated|computed|derived|by|using|from|via|here\s+(?:is|are)|we\s+(?:need\s+to|must|should|can|have\s+to)"
    r"|very|quite|pretty|simple|easy|based|related|shown|explained|written|in\s+order|not\b(?!.*\bbut\b)"
    r"|(?:greater|less|more|fewer|larger|smaller|higher|lower)\s+than|at\s+(?:least|most)|between|nearly|almost)\b",
    re.IGNORECASE,
)
"""How a sentence begins whose numbers belong to the working."""
_IN_ANOTHER_LANGUAGE = re.compile(
    rf"([-+−]?(?:[$£€¥₹]\s?)?\d(?:[\d.,:/]*\d)?%?)\s?(?!{_MULTIPLIERS})"
    r"(?=[^\d=]*$)[A-Za-z ]*(?![\d×÷])[\u00c0-\u024f\u0400-\u1fff\u2e80-\ud7ff]"
)
"""A number with a unit or an ending in another language: 12 元, 12입니다, 12 Äpfel. 3万 is 30,000."""
_ENDING = re.compile(
    r"\s*(?:です|でした|である|だ|となります|になります|입니다|이다|है|हैं|হবে|['’][^\W\d]{1,8})?[\s।.]*$"
)
_PLACEHOLDER = re.compile(
    r"your|the|my|final|correct|numerical|boxed|answers?|value|number|letter|result|here|goes|text\w*|math\w*|mbox"
)
_EMPTY = re.compile(
    r"(?:[\s.…?_{}$~]|\\(?:[,;:! ]|[lc]?dots|q?quad|square|Box|h?phantom|hspace|underline|text(?=\{)))*"
)
_NO_LETTER = re.compile(r"[^\w∅∞√π½<>=+]*")


def is_placeholder(text: str) -> bool:
    """Whether this is what instructions write for the answer: nothing, dots, "[your answer]", "$Answer"."""
    if text[:1].isdigit():  # most answers
        return False
    if len(text) > 80:
        return not text.strip()
    words = [word for word in re.split(r"[\W_]+", text.lower()) if word]
    return _EMPTY.fullmatch(text) is not None or (bool(words) and all(map(_PLACEHOLDER.fullmatch, words)))


def announced(tail: str) -> str | None:
    """The value at the start of the text, or the last value of its first sentence. None: it has none."""
    tail = with_english_joins(_CALCULATOR.sub("", _MARKUP_TAG.sub("", tail)))
    if items := _items(tail.lstrip("*_`: \n")) or _items(tail.lstrip("_`: \n")):
        return items
    if hedge := _HEDGE.match(tail):
        tail = tail[hedge.end() :]
        if "\n" in hedge[0] and _NUMBERED_STEP.match(tail):
            return None
    if tail[:7].lower() == "either " and VALUE_START.match(tail, 7):
        tail = tail[7:]
    if _MATH_SPAN.match(tail):
        values, after = _list_at(tail, 0)
        return None if not all(values) or _IS_THE_SUBJECT.match(tail, after) else end_of_chain(", ".join(values))
    end = _SENTENCE_END.search(tail)
    sentence = (tail[: end.start()] if end else tail).strip().strip("*_`\"'“”").rstrip("{}" if "{" not in tail else "")
    return None if _NO_LETTER.fullmatch(sentence) else _stated(_without_lone_bracket(sentence))


def begins_with_value(tail: str) -> bool:
    """Whether the text begins with a value and not with words about it."""
    hedge = _HEDGE.match(tail)
    return _BEGINS_WITH_VALUE.match(tail, hedge.end() if hedge else 0) is not None


def _items(text: str) -> str | None:
    """The values of lines such as "- x = 2" or of parts in a line, "(1) 5; (2) 6": at least two, as a list."""
    found: list[str] = []
    unknowns: list[str] = []
    end = 0
    while (item := _ITEM.match(text, end)) and len(found) < 20:
        found.append(item[2])
        unknowns += filter(None, [item["unknown"]])
        end = item.end()
    if len(set(unknowns)) < len(unknowns):  # a calculation
        return None
    values = [announced(item) for item in (found if len(found) > 1 else _parts(text.partition("\n")[0]))]
    return ", ".join(filter(None, values)) if len(values) > 1 and all(values) else None


def _parts(line: str) -> list[str]:
    """What stands after the labels "(a) … (b) …" or "(1) … (2) …" of a line that begins with the first."""
    labels = [*_PART.finditer(line)]
    in_order = all(ord(label[1]) == ord("a1"[label[1].isdigit()]) + place for place, label in enumerate(labels))
    if len(labels) < 2 or labels[0].start() or not in_order:
        return []
    ends = [*(label.start() for label in labels[1:]), len(line)]
    return [line[label.end() : end] for label, end in zip(labels, ends, strict=True)]


def _without_lone_bracket(sentence: str) -> str:
    """Without a closing bracket that was opened before the sentence: "(Answer: 12)"."""
    is_lone = sentence[-1:] in (")", "]") and not any(bracket in sentence for bracket in "([{")
    return sentence[:-1].strip("*_` ") if is_lone and "[" not in sentence else sentence


def _stated(sentence: str) -> str | None:
    """The value at the start of a sentence, or else the last value in it."""
    sentence = _NEGATIVE.sub("-", _ASIDE.sub("", " ".join(sentence.split())))
    for pattern in (_OF_THE_CHOICES, _NAMED_CHOICE, _CHOICES, _SEVERAL_UNITS, _IN_ANOTHER_LANGUAGE, _IN_WORDS):
        if whole := pattern.match(sentence):
            return whole[whole.lastindex or 0].replace("&", "and")
    if (choice := _CHOICE.match(sentence)) and not _ARTICLE.match(sentence):
        return choice[1]
    number = _NUMBER.match(sentence)
    if number and _IS_THE_SUBJECT.match(sentence, number.end()):
        return None
    if formula := _FORMULA.match(sentence):
        content = formula[0].strip(" ,").rstrip("=+*/^<>-− ,(")
        if _COMPUTES.search(content):
            return end_of_chain(content)
    if VALUE_START.match(sentence):
        return _value_first(sentence)
    return _words_first(sentence)


def _value_first(sentence: str) -> str | None:
    """The value of a sentence that begins with it."""
    sentence = _ENDING.sub("", _REMARK.sub("", sentence)).strip("*_` ")
    number = _NUMBER.match(sentence)
    if number and _CALCULATES.match(sentence, number.end()) and "=" not in sentence:
        return None
    if len(sentence.split()) <= 4 or not re.search(r"(?<![a-z])(?!and\b)[a-z]{3}", sentence):
        return sentence or None
    return _plain_number(number[0]) if number else last_in(sentence)


def _words_first(sentence: str) -> str | None:
    """The value of a sentence that begins with a word: the words themselves if they are few, else the last value."""
    if introduced := _AFTER_COLON.match(sentence):
        return _value_first(sentence[introduced.end() :])
    can_be_one = _ANSWER_AFTER_ALL.match(sentence) or not _NO_ANSWER.match(sentence)
    few = _REMARK.sub("", sentence).strip("*_` ")
    if can_be_one and 0 < len(few.split()) <= 3 and not _CLAUSE.match(few):
        return few
    if choice := _CHOICE_AT_END.search(sentence):
        return choice[1]
    return None if _TELLS_HOW.match(sentence) else _after_verb(sentence) or last_in(sentence)


def _after_verb(sentence: str) -> str | None:
    """The values after the first verb that only a remark follows, 5 of "the maximum is 5 at x = 2"."""
    if _SUBORDINATE.match(sentence):
        return None
    end = 0
    while verb := _VERB_THEN_VALUE.search(sentence, end):
        values, end = _list_at(sentence, verb.end())
        if values and _QUALIFIES.match(sentence, end):
            return end_of_chain(", ".join(values))
    return None


def _list_at(text: str, begin: int) -> tuple[list[str], int]:
    """The values, joined by commas or words, that stand in the text at `begin`, and where they end."""
    values: list[str] = []
    end = begin
    pattern = _MATH_SPAN if _MATH_SPAN.match(text, begin) else _ONE_VALUE
    while value := pattern.match(text, begin):
        values.append(_span_content(value) if pattern is _MATH_SPAN else value[0])
        end = value.end()
        if not (gap := _BETWEEN_SPANS.match(text, end)):
            break
        begin = gap.end()
    return values, end


_GROUPING = re.compile(r"(?<=\d)(?:,|\{,\}|\\[,!])+(?=\d{3}(?!\d))")
_NO_CHAIN = re.compile(r"[,;<>≤≥≠&]|\\(?:le|ge|ne|lt|gt|text|begin|or|and|quad)|\b(?:or|and)\b")
_COMPUTATION = re.compile(
    r"(?=.*[\d}) ][-−+*/^×÷·!\\x]|\\)"
    r"(?:[\d\s.,+*/^!%()\[\]{}$·×÷−-]|(?<=[\d ])x(?=[\d ])|\\(?:times|cdot|div|[dt]?frac|sqrt|left|right|\$|%))*"
)
_BARE_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?")


def end_of_chain(content: str) -> str:
    """The end of a chain of equal values, 293 of m+n = 256+37 = 293; any other text as it is.

    An equation is no chain: y = 2x + 1. A chain has a computation before its last sign, or has several signs.
    """
    if "=" not in content or _NO_CHAIN.search(_GROUPING.sub("", content)):
        return content
    *before, last = (part.strip() for part in content.split("="))
    if not before[-1] or not re.search(r"\d|\\pi|π|\\infty|∞", last):
        return content
    is_chain = _COMPUTATION.fullmatch(before[-1]) or (len(before) > 1 and not _BARE_NAME.fullmatch(before[-1]))
    return last if is_chain else content


def _span_content(span: re.Match[str]) -> str:
    return next(group for group in span.groups() if group is not None).strip()


def _plain_number(number: str) -> str:
    """The number without currency and digit grouping. A comma that groups no digits, as in 2,74, is a decimal comma."""
    number = re.sub(r"[\s$£€]", "", number)
    grouped = re.fullmatch(r"[-−]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", number)
    return number.replace(",", "" if grouped else ".")


def last_in(text: str) -> str | None:
    """The last formula or number in a text, whichever ends later."""
    found: tuple[int, str] | None = None
    for span in _MATH_SPAN.finditer(text):
        content = _span_content(span)
        if content and not _WORDS.search(content):
            found = (span.end(), content)
    for number in _NUMBER.finditer(text, found[0] if found else 0):
        found = (number.end(), _plain_number(number[0]))
    return found[1] if found else None


# -------------------------------------------------------------------------------------------------------- last number

_STEP_LABEL = re.compile(r"^\s*(?:\**\s*Step\s+\d+\s*\**\s*[:.]|\d+[.)]\s|[-*]\s)", re.IGNORECASE)
_SENTENCE_BREAK = re.compile(r"(?<=[.!?。])\s+|\n+")
_CLOSING_PHRASE = re.compile(r"I hope (?:it|this) is correct\.?\s*$", re.IGNORECASE)
_INCOMPLETE = re.compile(r"(?:\\(?:[dt]?frac(?:\{[^{}]*\})?|sqrt|times|cdot|div)|[+=^/])\s*$")
MAX_TAIL_CHARS = 2000  # so much of a response is searched for an answer in prose


def is_cut_off(text: str) -> bool:
    r"""Whether the text ends inside a formula: in \(, in a brace, after \frac{1}, or after a sign such as "="."""
    line = text[text.rfind("\n", max(0, len(text) - MAX_TAIL_CHARS)) + 1 :][-MAX_TAIL_CHARS:].rstrip()
    tail = text[-MAX_TAIL_CHARS:]
    is_open = any(tail.count(a) > tail.count(b) for a, b in ((r"\[", r"\]"), (r"\(", r"\)"), (r"\begin{", r"\end{")))
    return is_open or line.count("{") > line.count("}") or _INCOMPLETE.search(line[-200:]) is not None


def is_unfinished(tail: str) -> bool:
    """Whether the value that begins the tail of a text is cut off by the end of the text."""
    if hedge := _HEDGE.match(tail):
        tail = tail[hedge.end() :]
    if re.match(r"\\[\[(]|\$(?![\d.]|\\\$)|\\begin\{", tail):
        return _MATH_SPAN.match(tail) is None and len(tail) < MAX_TAIL_CHARS
    return not _SENTENCE_END.search(tail) and is_cut_off(tail)


def last_value(text: str) -> str | None:
    """The last formula or number of the last sentence that has a letter or digit."""
    tail = _CLOSING_PHRASE.sub("", text[-MAX_TAIL_CHARS:].rstrip()).rstrip()
    display = [span for span in _MATH_SPAN.finditer(tail) if span.end() >= len(tail) - 1]
    if display and (content := _span_content(display[-1])):
        return content
    sentences = [sentence for sentence in _SENTENCE_BREAK.split(tail) if any(c.isalnum() for c in sentence)]
    return last_in(_STEP_LABEL.sub("", sentences[-1])) if sentences else None
