"""Experiments: one file, one claim. Run them from the root of the repository with ``python -m``."""
