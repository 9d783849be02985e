"""What the rows of a run say about the method itself. Intervals are 95 % Wilson intervals; None: there is no value."""
