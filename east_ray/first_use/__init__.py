"""A user's first YAML file: written from a file of responses, from a few answers, or the one that is shipped."""
