"""A trained model behind Ray Serve: the OpenAI protocol by vLLM's own classes, and the method's signal at `/v1/solve`.

settings      every setting of serving; how a run or a model becomes what is served
solving       responses to one question -> answer, entropy and clusters
solver        a request to /v1/solve -> responses of the engine -> its solution
chat, gate    which chat fields are served; access, limits and failover
application   the HTTP application of a replica
deployment    replicas, start and end of the service on Ray Serve
"""

from typing import Any


def build(args: dict[str, Any]) -> Any:
    """The application for the files of ``serve deploy``; they need the `controller_options` of serve.yaml too."""
    from east_ray.serving.deployment import build

    return build(args)
