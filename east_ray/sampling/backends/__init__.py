"""What answers a prompt: one file for each kind of engine."""
