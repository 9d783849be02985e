"""What a final answer is worth: text -> tokens -> expression tree -> values -> canonical key."""

from east_ray.symbolic.keys import Key, has_long_decimal, is_rounding_of, key
from east_ray.symbolic.tokens import clean

__all__ = ["Key", "clean", "has_long_decimal", "is_rounding_of", "key"]
