"""Which answer counts as right, where references may be wrong or missing: the responses and a trusted set decide."""
