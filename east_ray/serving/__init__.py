"""A trained model behind Ray Serve: the OpenAI protocol by vLLM's own classes, and the method's signal at `/v1/solve`.

settings      every setting of serving; how a run or a model becomes what is served
solving       a question -> responses -> clusters, entropy and answer: /v1/solve
gate          access, limits and failover
application   the HTTP application of a replica; which chat fields are served
deployment    replicas, start and end of the service on Ray Serve
"""

from typing import Any


def build(args: dict[str, Any]) -> Any:
    """The application for the files of ``serve deploy``; they need the `controller_options` of serve.yaml too."""
    from east_ray.serving import deployment

    return deployment.build(args)
