"""The words that announce a final answer, in many languages, and the places of a text where they stand.

A word of the table announces an answer if a colon or an arrow follows, a verb of its language ("the answer is"), or,
where it begins a line, the answer itself. The setting `answers.announcements` adds words to the table.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_MAX_PLACES = 200  # so many places of words of the table are looked at, from the last


class Language(NamedTuple):
    """How a language announces an answer. Words are lower case and separated by "|"."""

    names: str
    """What the answer is called: "answer|result"."""
    verbs: str = ""
    """What may stand between the name and the answer: "is|are"."""
    decimal_comma: bool = False
    """A response in this language writes 3,5 for 3.5."""
    joins: str = ""
    """What joins several answers: "and|or"."""


ANNOUNCEMENTS = {
    "English": Language(
        "answer|final result|result|ans|correct option|right option|best option|final option"
        "|correct choice|right choice|best choice|final choice|my choice|our choice|correct letter",
        joins="and|or",
    ),
    "Arabic": Language("الإجابة|الاجابة|إجابة|الجواب|جواب|الناتج", "هي|هو", joins="و|أو|او"),
    "Armenian": Language("պատասխան", "է", joins="և|կամ"),
    "Azerbaijani": Language("cavab", joins="və|ya da"),
    "Bengali": Language("উত্তর|উত্তরঃ", "হল|হলো|হলঃ|হবে", joins="এবং|বা|অথবা"),
    "Bulgarian": Language("отговор", "е", True, joins="и|или"),
    "Burmese": Language("အဖြေ", "မှာ|သည်", joins="နှင့်|သို့မဟုတ်"),
    "Catalan": Language("resposta|resultat", "és|es", True, joins="i|o"),
    "Chinese": Language(
        "答案|答覆|答复|答|最终结果|最終結果|结果|結果|正确选项|正确的选项|正確選項|故选|故選|应选|應選",
        "是|为|為|等于|等於|选|選",
        joins="和|或|或者|与|與|及|以及",
    ),
    "Croatian, Serbian, Slovene": Language("odgovor|одговор|rezultat", "je|је", True, joins="i|ili|ali|и|или"),
    "Czech, Slovak": Language("odpověď|odpoveď|výsledek|výsledok", "je", True, joins="a|nebo|alebo"),
    "Danish, Norwegian, Swedish": Language("svar|svaret|resultatet", "er|är|blir", True, joins="og|och|eller"),
    "Dutch": Language("antwoord|uitkomst|resultaat", "is|luidt", True, joins="en"),
    "Estonian": Language("vastus", "on", True, joins="ja|või"),
    "Filipino": Language("sagot", "ay", joins="o"),
    "Finnish": Language("vastaus|tulos", "on", True, joins="ja|tai"),
    "French": Language(
        "réponse|reponse|résultat|bonne option|option correcte", "est|sont|vaut", True, joins="et|ou|ou bien"
    ),
    "Galician, Portuguese": Language(
        "resposta|resultado|opção correta|alternativa correta", "é|e|são|será", True, joins="e|ou"
    ),
    "Georgian": Language("პასუხი", "არის", joins="და|ან"),
    "German": Language(
        "antwort|ergebnis|endergebnis|lösung|richtige option",
        "ist|sind|lautet|lauten|beträgt|betragen",
        True,
        joins="und|oder|bzw.",
    ),
    "Greek": Language("απάντηση|αποτέλεσμα", "είναι", True, joins="και|ή"),
    "Gujarati": Language("જવાબ", joins="અને|અથવા"),
    "Hausa": Language("amsa", "ita ce|ce", joins="da|ko"),
    "Hebrew": Language("תשובה|התשובה", "היא|הוא", joins="או"),
    "Hindi, Marathi, Nepali": Language("उत्तर|जवाब", "है|आहे", joins="और|या|आणि|किंवा|वा"),
    "Hungarian": Language("válasz|eredmény|végeredmény", "", True, joins="és|vagy"),
    "Indonesian, Malay": Language(
        "jawaban|jawabannya|jawapan|jawapannya|hasil akhir", "adalah|ialah", True, joins="dan|atau"
    ),
    "Italian": Language("risposta|risultato|opzione corretta", "è|é|sono|vale", True, joins="e|o|oppure"),
    "Japanese": Language("答え|答|解答|回答|正解|最終結果", "は|が", joins="と|または|及び|か"),
    "Kannada": Language("ಉತ್ತರ", joins="ಮತ್ತು|ಅಥವಾ"),
    "Kazakh, Kyrgyz": Language("жауап|жауабы|жооп", "", True, joins="және|немесе|жана|же"),
    "Khmer": Language("ចម្លើយ", "គឺ", joins="និង|ឬ"),
    "Korean": Language("정답|답변|답", "은|는|이", joins="와|과|또는|그리고|및|이거나"),
    "Lao": Language("ຄໍາຕອບ|ຄຳຕອບ", "ແມ່ນ", joins="ແລະ|ຫຼື"),
    "Latvian": Language("atbilde", "ir", True, joins="un|vai"),
    "Lithuanian": Language("atsakymas", "yra", True, joins="ir|arba"),
    "Malayalam": Language("ഉത്തരം", joins="അല്ലെങ്കിൽ"),
    "Persian, Urdu": Language("پاسخ|جواب|نتیجه", "برابر است با|برابر|ہے", joins="و|یا|اور"),
    "Polish": Language("odpowiedź|wynik", "to|brzmi|wynosi", True, joins="i|oraz|lub|albo"),
    "Punjabi": Language("ਜਵਾਬ|ਉੱਤਰ", joins="ਅਤੇ|ਜਾਂ"),
    "Romanian": Language("răspuns|răspunsul|rezultatul", "este|e", True, joins="și|şi|sau"),
    "Russian": Language(
        "ответ|ответом|результат|правильный вариант",
        "равен|равна|равно|равны|составляет|является|будет|это",
        True,
        joins="и|или",
    ),
    "Sinhala": Language("පිළිතුර", joins="සහ|හෝ"),
    "Somali": Language("jawaabta|jawaab", "waa", joins="iyo|ama"),
    "Spanish": Language(
        "respuesta|resultado|opción correcta|alternativa correcta", "es|son|sería|vale", True, joins="y|e|o|u|o bien"
    ),
    "Swahili": Language("jibu|majibu", "ni", joins="na|au"),
    "Tamil": Language("பதில்|விடை", joins="மற்றும்|அல்லது"),
    "Telugu": Language("సమాధానం|జవాబు", joins="మరియు|లేదా"),
    "Thai": Language("คำตอบ", "คือ|เท่ากับ", joins="และ|หรือ"),
    "Turkish": Language("cevap|cevabı|cevabımız|yanıt|sonuç", "", True, joins="ve|veya|ya da"),
    "Ukrainian": Language("відповідь|відповіддю", "дорівнює|дорівнюють|є|це", True, joins="і|й|та|або"),
    "Uzbek": Language("javob", "", True, joins="va|yoki"),
    "Vietnamese": Language("đáp án|đáp số|câu trả lời|trả lời|kết quả", "là|bằng", True, joins="và|hoặc"),
    "Yoruba": Language("ìdáhùn|idahun|ìdáhùn náà", "ni", joins="àti|tàbí"),
    "Zulu, Xhosa": Language("impendulo", "ngu|ithi|yi"),
}
"""Every built-in announcement. English has a grammar of its own below."""


def _pattern(words: set[str]) -> str:
    """A pattern of words between spaces. Scripts from Thai on write words together."""
    longest_first = sorted(words - {""}, key=len, reverse=True)
    spaced = [re.escape(word) for word in longest_first if ord(word[0]) < _FIRST_UNSPACED_SCRIPT]
    joined = [re.escape(word) for word in longest_first if ord(word[0]) >= _FIRST_UNSPACED_SCRIPT]
    return rf"(?<=\s)(?:{'|'.join(spaced)})(?=\s)|{'|'.join(joined)}"


_FIRST_UNSPACED_SCRIPT = 0x0E00
_JOINS = {word for language in ANNOUNCEMENTS.values() for word in language.joins.split("|")}
_VERBS = {word for language in ANNOUNCEMENTS.values() for word in language.verbs.split("|")}
JOINS = _pattern(_JOINS)
"""A pattern of the words for "and" and "or" in every language."""
VERBS = _pattern(_VERBS - _JOINS)
"""A pattern of the verbs of every language, but of those that join values elsewhere."""

_JOINED = re.compile(
    rf"(?:(?<=[\d)}}\]$%!²³π])|(?<=\b[A-H]))(?:\s{{0,4}}(?P<word>{JOINS})\s{{0,4}}|\s?(?:[、；]|，(?!\d{{3}}(?!\d)))\s?)"
    r"(?=[-−]?[£€¥₹]?\.?\d|\$(?=[^\s.,;:)])|\\[(\[]|[(√π]|[-−]?[A-Za-z]\w?\s?=|[A-H]\b)"
)
"""What joins two values in any language."""
_ONE_LETTER = re.compile(r"[A-Za-z]")
_EQUATION = re.compile(r"[-−]?[A-Za-z]\w?\s?=")
_ENDS_WITH_EQUATION = re.compile(r"(?<![\w\\])[A-Za-z]\w?\s?=\s?[^\s=,;]+$")


def with_english_joins(text: str) -> str:
    """The text with "and" or a comma in place of what joins two values: "2 oder 3", "2、3"."""
    return _JOINED.sub(_in_english, text)


def _in_english(join: re.Match[str]) -> str:
    if _ONE_LETTER.fullmatch(join["word"] or "") and _EQUATION.match(join.string, join.end()):
        line = join.string[max(0, join.start() - 40) : join.start()]
        if not _ENDS_WITH_EQUATION.search(line):
            return join[0]
    is_factor = join.string[join.end()] == "(" and join.string[join.start() - 1] != ")"  # 2 y (y + 1)
    return join[0] if is_factor or join["word"] in ("and", "or") else " and " if join["word"] else ", "


# ------------------------------------------------------------------------------------------------------------- grammar

_MARKUP = r"[*_`\"'”’»)\]]{0,6}"
_CELL = r"[*_`( \t]{0,8}(?:[A-Za-z]\s?=|[-−+]?[$£€¥₹]?[ ]?\.?\d|[$\\√π]|[A-H](?!\s?\w))"
_SEPARATOR = (
    rf"[ \t]{{0,4}}(?:->|=>|→|⇒|(?<![^A-Za-z][A-Za-z])(?<![^A-Za-z][A-Za-z]\s)={{1,2}}|(?:[:：∶ঃ—】]|\|(?={_CELL}))"
    r"(?:[-–—](?=[\s*_]))?)[*_]{0,4}|[ \t]{0,4}[-–][ \t]"
)
_VALUE = r"[*_`\s]{0,8}(?:[a-z]\s?=|[-−+]?[$£€¥₹]?[ ]?\.?\d|\$|\\[(\[]|\(?[A-H]\)?[*_.]{0,3}(?:\s|$|[^\x00-\x7f]))"
_OF_WHAT = r"\s(?:to|for|of|in|from)\s[^.\n:=$]{1,60}?|\s*\([^()\n]{1,60}\)|,\s[^.\n:=$,]{1,60},|\s(?:i|we)\s\w{1,12}"
_FOUND = r"(?:\s(?:thus\s)?(?:obtained|found|required|needed|desired|sought|expected|requested|above|here)){0,2}"
_CANNOT_BE_KNOWN = r"\s(?=(?:cannot|can['’]t)\sbe\s(?:determined|found|computed)|does\snot\sexist)"
_VERB = (
    r"\s{1,4}(?:is|are|was|were|equals|becomes|reads|comes\s+(?:out\s+)?to|turns\s+out\s+to\s+be"
    r"|(?:will|would|should|must|can|may|might|could|has\s+to|have\s+to|needs\s+to)\s+(?:(?!not\b)\w+\s+)?be"
    r"|of(?=\s+[*$\\(]{0,3}[-−]?[\d$\\]))\b[ \t]*[:=]?"
)
_ENGLISH = {
    "answer": re.compile(
        rf"s?{_FOUND}(?:{_OF_WHAT})?{_MARKUP}(?:{_VERB}|{_SEPARATOR}|{_CANNOT_BE_KNOWN})", re.IGNORECASE
    ),
    "result": re.compile(rf"s?{_MARKUP}{_VERB}", re.IGNORECASE),
    "final result": re.compile(rf"s?(?:{_OF_WHAT})?{_MARKUP}(?:{_VERB}|{_SEPARATOR})", re.IGNORECASE),
    "ans": re.compile(rf"\.?{_MARKUP}(?:{_SEPARATOR})|\.[ \t]+(?={_VALUE})"),
}
_ENGLISH_OPTION = re.compile(rf"{_MARKUP}(?:{_VERB}|{_SEPARATOR})", re.IGNORECASE)
_BEGINS_CLAUSE = re.compile(r"\W{0,9}[A-H]\s(?!(?:because|since|as|is|and|or)\b)[a-z]")
_AT_LINE_START = re.compile(r"(?:^|\n)[^\w\n$\\]{0,12}(?:[^\W\d_]{1,16},? ){0,2}$")
_AS_HEADING = re.compile(rf"s?{_MARKUP}[ \t]*[:：=]?{_MARKUP}(?:[ \t]*(?=\n)|(?={_VALUE}))", re.IGNORECASE)
_MATHEMATICS = re.compile(r"[*_]*\s*(?=\$|\\\(|\\\[)")
_NOWHERE = re.compile(r"(?!)")
_LINE_A = re.compile(r"^[ \t]*A:", re.MULTILINE)
"""The answer in few-shot form: "Q: … A: 26"."""


class Place(NamedTuple):
    """An announcement in a text."""

    start: int
    end: int
    """Where the answer may begin."""
    opens_line: bool
    """It stands where a line begins: "Answer: 5", "**Final answer** 5", "La respuesta es 5"."""


_FIRST_JOINED_SCRIPT = 0x0530  # Latin, Greek and Cyrillic stand before it


class _Word(NamedTuple):
    text: str
    whole: bool
    """It is a word between spaces. Other scripts write words together, or with prefixes."""
    after: re.Pattern[str]
    before: re.Pattern[str]
    """After this the answer may follow at once, also in the middle of a line: "Somit lautet die Antwort 42"."""
    anywhere: bool
    """The answer may follow at once, also in the middle of a line."""


def places(text: str, further: tuple[str, ...] = (), begin: int = 0) -> list[Place]:
    """The announcements of a text after the place `begin`, from the last to the first."""
    rest = text[begin:]
    lowered = lower_case(rest)
    words = [word for word in _words(further, text.isascii()) if word.text in lowered]
    hits = [(begin + place, len(word.text), word) for word in words for place in _last_places(word.text, lowered)]
    hits.sort(key=lambda hit: hit[:2], reverse=True)
    announced = [_announcement(text, place, word) for place, _, word in hits[:_MAX_PLACES]]
    lines = [Place(match.start(), match.end(), True) for match in _LINE_A.finditer(text, begin)] if "A:" in rest else []
    return sorted([*filter(None, announced), *lines[-_MAX_PLACES:]], reverse=True)


def lower_case(text: str) -> str:
    """The text in lower case, of the same length."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)  # İ has two characters in lower case


def writes_decimal_comma(text: str) -> bool:
    """Whether the text has a word of the table in a language that writes 3,5 for 3.5."""
    return _COMMA_WORDS.search(text) is not None


def _last_places(word: str, lowered: str) -> Iterator[int]:
    place = lowered.rfind(word)
    for _ in itertools.repeat(None, _MAX_PLACES):
        if place < 0:
            return
        yield place
        place = lowered.rfind(word, 0, place)


def _announcement(text: str, start: int, word: _Word) -> Place | None:
    end = start + len(word.text)
    is_plural = text[end : end + 1] in ("s", "S") and not text[end + 1 : end + 2].isalpha()
    is_within = text[max(0, start - 1) : start].isalnum() or (text[end : end + 1].isalpha() and not is_plural)
    if word.whole and is_within:
        return None
    line = _AT_LINE_START.search(text, max(0, start - 60), start)
    if word.after is _ENGLISH_OPTION and _BEGINS_CLAUSE.match(text, end):
        return None
    if after := word.after.match(text, end):
        return Place(start, after.end(), line is not None)
    opens = line or word.anywhere or word.before.search(text, max(0, start - 60), start)
    if opens and (heading := _AS_HEADING.match(text, end)):
        return Place(start, heading.end(), line is not None)
    if word.text == "answer" and (mathematics := _MATHEMATICS.match(text, end)):
        return Place(start, mathematics.end(), False)
    return None


@functools.lru_cache(maxsize=64)
def _words(further: tuple[str, ...], only_ascii: bool) -> tuple[_Word, ...]:
    """Every word of the table and of the setting, also in decomposed characters, or those of ASCII characters alone."""
    if only_ascii:
        return tuple(word for word in _words(further, False) if word.text.isascii())
    verbs_of: dict[str, list[str]] = {}
    every_verb = "|".join(filter(None, (language.verbs for language in ANNOUNCEMENTS.values())))
    users = [name.strip().lower() for name in further]
    table = [(language.names.split("|"), language.verbs) for language in ANNOUNCEMENTS.values()]
    for names, verb in [*table, (users, f"is|are|{every_verb}")]:
        for name in names:
            for spelled in dict.fromkeys((unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
                verbs_of.setdefault(spelled, []).append(verb)
    of_english = set(ANNOUNCEMENTS["English"].names.split("|"))
    found = []
    for name, verbs in verbs_of.items():
        whole = ord(name[0]) < _FIRST_JOINED_SCRIPT
        of_verbs = "|".join(filter(None, verbs))
        after = _ENGLISH.get(name, _ENGLISH_OPTION) if name in of_english else _grammar(of_verbs, whole, len(name))
        before = _head(of_verbs) if whole and name not in of_english else _NOWHERE
        found.append(_Word(name, whole, after, before, anywhere=(not whole and len(name) > 1) or name in users))
    return tuple(found)


@functools.lru_cache(maxsize=256)
def _head(verbs: str) -> re.Pattern[str]:
    """What stands before the name of the answer where a sentence begins, or after a verb."""
    some = r"(?:[^\W\d_]{1,16},?\s){0,2}$"
    verb = rf"|(?<!\w)(?:{verbs})\s{some}" if verbs else ""
    return re.compile(rf"[.;!?]\s{some}{verb}", re.IGNORECASE)


@functools.lru_cache(maxsize=256)
def _grammar(verbs: str, whole: bool, length: int) -> re.Pattern[str]:
    """What stands between the name of the answer and the answer in a language other than English."""
    verbs = "|".join(sorted(verbs.split("|"), key=len, reverse=True))
    some = r"(?:\s[^\W\d]{1,14}){0,2}" if whole else rf"[^\d\n,，。.:：$\\]{{0,{0 if length == 1 else 12}}}?"
    more = r"(?:\s[^\W\d]{1,14}){0,6}?" if whole else some
    space, end = (r"\s{1,4}", r"(?![^\W\d])") if whole else (r"\s{0,4}", "")
    verb = rf"{more}{space}(?:{verbs}){end}[ \t]*[:：=]?" if verbs else r"(?!)"
    return re.compile(rf"{some}(?:{_MARKUP}\s?(?:{_SEPARATOR})|(?=\s?[a-z]\s?=))|{verb}", re.IGNORECASE)


_COMMA_WORDS = re.compile(
    rf"\b(?:{'|'.join(language.names for language in ANNOUNCEMENTS.values() if language.decimal_comma)}"
    r"|donc|решение)\b",
    re.IGNORECASE,
)
