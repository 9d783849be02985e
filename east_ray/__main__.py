"""``python -m east_ray VERB``: the same as the script ``east-ray``."""

from east_ray.cli import main

main()
