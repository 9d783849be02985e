"""What every HTML page of ours needs: the hash that a Content-Security-Policy names a script by."""

import base64
import hashlib

import markupsafe


def csp_hash(script: str) -> markupsafe.Markup:
    """The one script that a Content-Security-Policy lets run, by its hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return markupsafe.Markup(f"'sha256-{digest}'")  # noqa: S704 - base64
