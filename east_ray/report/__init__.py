"""What a run came to, for people: on the terminal, as one HTML file, and as the card of a model."""
