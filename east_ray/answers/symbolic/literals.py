"""What the digits of a literal mean: times of day, numbers with a base, dates, periods; and names of derivatives."""

import re
from fractions import Fraction
from math import gcd

_SPACE = r"(?:[\s~]|\\[ ,;:])*"
_TEXT_OPENS = r"(?P<opening>\\(?:text[a-z]*|mathrm|mbox)\s*\{[\s~]*)?"
_TEXT_CLOSES = r"(?![A-Za-z])(?(opening)[^{}]*\})"
_PART_OF_DAY = r"(?P<part>in[\s~]+the[\s~]+(?:morning|afternoon|evening)|at[\s~]+night)"
CLOCK = re.compile(
    r"(?P<hour>\d{1,2}):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?![\d:])"
    rf"(?:{_SPACE}{_TEXT_OPENS}(?:{_PART_OF_DAY}|(?P<half>[ap])\.?(?:[\s~]*m\.?)?){_TEXT_CLOSES})?",
    re.IGNORECASE,
)
HOUR = re.compile(rf"(?P<hour>\d{{1,2}}){_SPACE}{_TEXT_OPENS}(?P<half>[ap])\.?[\s~]*m\.?{_TEXT_CLOSES}", re.IGNORECASE)
DATE = re.compile(r"\d{4}-(?:0\d|1[0-2])-[0-3]\d(?!\d)")
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()
_MONTH = rf"(?P<month>{'|'.join(rf'{name[:3]}(?:{name[3:]})?' for name in _MONTHS)})\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:\^?\{?(?:st|nd|rd|th)\}?)?"
_YEAR = r"(?:,?\s*(?P<year>\d{4}))?"
_DATE_IN_WORDS = (
    re.compile(rf"{_MONTH}\s*{_DAY}{_YEAR}", re.IGNORECASE),
    re.compile(rf"(?:the )?{_DAY}\s*(?:of )?{_MONTH}{_YEAR}", re.IGNORECASE),
)
PREFIXED = re.compile(r"0(?:[xX]([0-9A-Fa-f]+)|[bB]([01]+)|[oO]([0-7]+))(?![A-Za-z0-9])")
BROKEN_PREFIX = re.compile(r"0[xXbBoO]\d")


def date_in_words(text: str) -> str | None:
    """The date of a text such as March 5th, 2020 or 5 March: month, day and year. None: it is no date alone."""
    for pattern in _DATE_IN_WORDS:
        if (match := pattern.fullmatch(text)) and 1 <= int(match["day"]) <= 31:
            month = next(name for name in _MONTHS if name.startswith(match["month"][:3].lower()))
            return " ".join(filter(None, (month, str(int(match["day"])), match["year"])))
    return None


def in_base(digits: str, base: str | int) -> str:
    """The name of a number with a base."""
    return f"{digits.upper().lstrip('0') or '0'} in base {base}"


def derivative_name(top: str, bottom: str) -> str:
    """The name of a derivative such as dy/dx."""
    return rf"\frac{{{top}}}{{{bottom}}}"


def time_of_day(match: re.Match[str]) -> str | None:
    """4:30 without a.m. or p.m. is 4:30 p.m., but 04:30 is a time of 24 hours. None: a ratio, such as 11:21."""
    parts = match.groupdict()
    hours, minutes, seconds = (int(parts.get(name) or 0) for name in ("hour", "minute", "second"))
    half = (parts["half"] or "").lower()
    if part := parts.get("part"):
        half = "a" if part.lower().endswith("morning") else "p"
    if not half and parts.get("second") and seconds and match[1][0] != "0":
        return None
    if not half and not parts.get("second") and minutes and gcd(hours, minutes) == 1:
        return None
    if half == "a" and hours == 12:
        hours = 0
    elif half != "a" and 1 <= hours <= 11 and (half or parts["hour"][0] != "0"):
        hours += 12
    return f"{hours}:{minutes:02}" + (f":{seconds:02}" if seconds else "")


def repeating_decimal(whole: str, fixed: str, repeated: str) -> Fraction:
    """0.1(6) = (16 - 1)/90: the digits to the end of the first period, minus those before it, over 9..90..0."""
    numerator = int(f"{whole}{fixed}{repeated}") - int(f"{whole}{fixed}" or "0")
    return Fraction(numerator, (10 ** len(repeated) - 1) * 10 ** len(fixed))
