"""East-ray: entropy-based adaptive weighting for self-training (EAST, arXiv 2503.23913), as a Ray application."""

__version__ = "0.1.0"
