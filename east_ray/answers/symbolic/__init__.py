"""What a final answer is worth: text -> tokens -> expression tree -> values -> canonical key."""

from east_ray.answers.symbolic.keys import Key, key
from east_ray.answers.symbolic.rounding import is_rounding_of, joined_roundings
from east_ray.answers.symbolic.tokens import clean

__all__ = ["Key", "clean", "is_rounding_of", "joined_roundings", "key"]
