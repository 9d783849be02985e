"""The JSON records of a run, checked against the types of east_ray.records that writers and readers share."""

import json
from typing import Any

from pydantic import ConfigDict, create_model

CONFIG = ConfigDict(extra="forbid", strict=True)


def checked(kind: Any, content: str | None) -> Any:
    """The content of a JSON file of this kind; raises pydantic.ValidationError for a key too many or too few."""
    assert content is not None, "there is no such file"
    record = json.loads(content)
    create_model("Checked", __config__=CONFIG, record=(kind, ...)).model_validate({"record": record})  # and all in it
    return record
