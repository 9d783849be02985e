"""Weighted examples -> a better model: DeepSpeed under Ray Train."""
