"""Strictness for every test: a rank promotion, a warning or a wrong shape is a failure."""

import os

import jax
import pytest

# Tests compile much and compute little, and a quarter of their time goes into optimising machine code. Subprocesses
# inherit it. The programs that XLA compiles are the same.
quick = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", quick not in ("0", "false"))
# Two cores: without this, every xdist worker would start as many threads as there are cores for its own plots.
os.environ.setdefault("MPLBACKEND", "agg")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def strict_dtype():
    """Implicit dtype promotion is an error, for our own functions (optax and flax are not written for it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield
