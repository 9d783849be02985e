"""Weights out: examples in the shapes that other trainers read, as files or on the Hugging Face hub."""
