"""Files of rows that others made: which files a path means, and the rows in them."""
