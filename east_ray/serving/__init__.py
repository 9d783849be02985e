"""A trained model behind Ray Serve."""

from typing import Any


def build(args: dict[str, Any]) -> Any:
    """The application for the files of ``serve deploy``; they need the `controller_options` of serve.yaml too."""
    from east_ray.serving.deployment import build

    return build(args)
