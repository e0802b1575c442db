"""`pytest benchmarks --smallest` plays everything once, at sizes at which times say nothing and are not looked at."""

import os

import pytest


def pytest_addoption(parser):
    parser.addoption("--smallest", action="store_true", help="everything once, at its smallest size")


def pytest_configure(config):
    # Before JAX is imported, and for subprocesses, too: most of the time would go into the optimisation of programs.
    if config.getoption("smallest"):
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.fixture
def flags(request):
    """``flags(parse)``: a benchmark's flags, at the sizes that were asked for."""
    return lambda parse: parse(["--smallest"] if request.config.getoption("smallest") else [])
