"""Will it fit, how long does it take, what does it cost: estimates before anything starts. No Ray, no torch."""
