"""Strictness for every test: a rank promotion, a warning or a wrong shape is a failure."""

import os

import jax
import pytest

# Two cores: without this, every xdist worker would start as many threads as there are cores for its own plots.
os.environ.setdefault("MPLBACKEND", "agg")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def strict_dtype():
    """Implicit dtype promotion is an error, for our own functions (optax and flax are not written for it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield
