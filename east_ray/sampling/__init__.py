"""Questions -> responses: a Ray Data pool of engines, or responses that another sampler made."""
