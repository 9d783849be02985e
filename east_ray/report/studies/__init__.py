"""What the rows of a run say about the method itself: one module for each study, with its numbers and its page.

    disagreements, errors    does entropy see something that the pass rate does not?
    suspects                 which reference answers look wrong? (the audit)
    fewer_responses          how many responses per question are enough?
    rounds                   do the weights settle, round after round?
    selective                does entropy tell which majority answers are wrong?
    steps                    how often are right answers reached by wrong steps, and where?

All results are dataclasses of numbers and texts: `dataclasses.asdict` makes JSON of them. Intervals are 95 % Wilson
intervals. None stands where a quantity does not exist, such as the correlation with a constant.
"""
