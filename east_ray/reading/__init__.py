"""Files of other programs: where they are, how their rows are read, and the texts in their values. No Ray or torch."""
