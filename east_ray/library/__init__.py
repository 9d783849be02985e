"""What ``import east_ray`` gives to a notebook: weighing in memory, and runs as tables. No Ray, torch or vLLM."""
