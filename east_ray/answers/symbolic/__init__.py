"""The canonical key of a final answer: text -> tokens -> expression tree -> values -> key."""

from east_ray.answers.symbolic.cleaning import clean
from east_ray.answers.symbolic.keys import key
from east_ray.answers.symbolic.prose import text_of_choice
from east_ray.answers.symbolic.rounding import is_rounding_of, joined_roundings

__all__ = ["clean", "is_rounding_of", "joined_roundings", "key", "text_of_choice"]
