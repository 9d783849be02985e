"""Files of rows that others made: which files a path means, the rows in them, and the values in a row."""
