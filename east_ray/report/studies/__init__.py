"""What the rows of a run say about the method itself: each study with its numbers and its page for the report.

Results are dataclasses of numbers and texts. Intervals are 95 % Wilson intervals. None stands where a quantity does not
exist, such as the correlation with a constant.
"""
