"""Text of any origin in an HTML page: escaped, printable and cut if it is long. Imports nothing heavy: serving uses it.

Everything that a page shows may come from a model or from a stranger's data. A template escapes it, `shown` makes
invisible characters visible, and the page's Content-Security-Policy names its one script by hash, so no other runs.
"""

import base64
import hashlib
import re
from typing import Any

import markupsafe

#: A text of any length as a template shows it without a limit of its own.
_MAX_SHOWN_CHARS = 1 << 20


def templates(package: str) -> Any:
    """A jinja2.Environment of the templates in a package: strict about names, and all text escaped and printable."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: shown(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": shown, "csp_hash": csp_hash}
    return environment


def printable(text: str) -> str:
    """The text with its invisible characters, and those that would reorder the text around them, made visible.

    Control characters become their pictures, those of bidirectional text their numbers, lone surrogates U+FFFD.

    >>> printable("a\\x00b\\u202ec\\ud800")
    'a␀b⟨U+202E⟩c�'
    """
    text = text.replace("\r\n", "\n")
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", lambda match: chr(0x2400 + ord(match[0])), text)
    reordering = r"[\r\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
    text = re.sub(reordering, lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
    return re.sub(r"[\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def shown(text: str, max_chars: int = _MAX_SHOWN_CHARS) -> str:
    """A text as it is shown: printable, and cut if it is long, with a note of how long it was.

    >>> shown("x" * 5000, 10)
    'xxxxxxxxxx … (cut: 5,000 characters in all)'
    """
    if isinstance(text, markupsafe.Markup):  # made by the template itself
        return text
    cut = f" … (cut: {len(text):,} characters in all)" if len(text) > max_chars else ""
    return printable(text[:max_chars]) + cut


def csp_hash(script: str) -> markupsafe.Markup:
    """The source expression of a Content-Security-Policy that allows this script alone."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return markupsafe.Markup(f"'sha256-{digest}'")  # noqa: S704 - base64
