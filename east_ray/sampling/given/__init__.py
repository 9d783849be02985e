"""Responses that another sampler made -> ``samples/``, to be clustered, weighted and trained on like our own."""

from east_ray.sampling.given.rows import given_sample, group_of, is_wanted, why_set_aside
from east_ray.sampling.given.stage import check_columns, stamp, write_samples
from east_ray.sampling.given.wording import one_set_aside, said_of, warnings, why_all_agree

__all__ = ["check_columns", "given_sample", "group_of", "is_wanted", "one_set_aside", "said_of", "stamp", "warnings"]
__all__ += ["why_all_agree", "why_set_aside", "write_samples"]
