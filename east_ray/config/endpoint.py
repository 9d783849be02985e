"""The section of an endpoint: a server that samples or evaluates in place of engines."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from east_ray.config.base import ANY_TIME, Section


class EndpointConfig(Section):
    """A server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, `east-ray serve`, a hosted model."""

    url: Annotated[str, ANY_TIME]
    """Where the protocol begins, e.g. http://127.0.0.1:8000/v1."""
    model: Annotated[str, Field(min_length=1)]
    """The model's name there."""
    fingerprint: str = ""
    """Your own word for the version of the model there, of which the server says nothing. Samples of another word are
    other samples."""
    api_key_env: Annotated[str | None, ANY_TIME] = None
    """Name of the environment variable that has the key, e.g. OPENAI_API_KEY: where the command runs and on the
    cluster's nodes. The key itself is never stored, printed or passed on."""
    api: Literal["auto", "completions", "chat"] = "auto"
    """completions: the prompt is rendered here and sent as token ids, or as text to a server that takes no ids. chat:
    the server renders the messages. auto: completions where the server takes token ids, else chat."""
    tokenizer: str | None = None
    """With completions: folder or hub name of the tokenizer that renders the prompt; by default that of the run's
    `model`. If the server has another model than that, say this or `api: chat`."""
    max_in_flight: Annotated[int, Field(ge=1, le=4096), ANY_TIME] = 64
    """Requests in flight at once. After an answer that says too many it is halved, and grows again as answers come."""
    max_retries: Annotated[int, Field(ge=0), ANY_TIME] = 8
    """How often a request that failed for no fault of its own is sent again, after a wait that doubles from half a
    second to a minute, or as long as the server says. Then its question is set aside, if the server answers others;
    else the run ends."""
    timeout_s: Annotated[float, Field(gt=0), ANY_TIME] = 600
    """Seconds that an answer, with all its responses, may take."""

    def _problems(self) -> Iterator[str]:
        try:
            address = urlsplit(self.url)
            is_address = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        except ValueError:  # of a port that is no number
            is_address = False
        if not is_address:
            yield "url: expected http://HOST:PORT/v1 or https://HOST/v1"
        elif address.username or address.password or address.query or address.fragment:
            yield "url: nothing may stand before the host or after the path; a key belongs into api_key_env's variable"
        if self.api_key_env is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", self.api_key_env):
            yield "api_key_env: expected the name of an environment variable in capitals, e.g. OPENAI_API_KEY; no key"
