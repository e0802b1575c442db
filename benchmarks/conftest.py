"""`pytest benchmarks --smallest` plays everything once, at sizes at which times say nothing and are not looked at."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--smallest", action="store_true", help="everything once, at its smallest size")


@pytest.fixture
def flags(request):
    """``flags(parse)``: a benchmark's flags, at the sizes that were asked for."""
    return lambda parse: parse(["--smallest"] if request.config.getoption("smallest") else [])
