"""Benchmark file or hub data set -> questions; question -> prompt."""
