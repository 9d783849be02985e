"""What models can do on held-out questions: estimates, intervals, significance, abstention."""
