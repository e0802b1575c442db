"""Strictness for every test: a rank promotion, a warning or a wrong shape is a failure."""

import functools
import gc
import importlib
import inspect
import itertools
import os
import sys
import threading
import types
import typing
import weakref
import zlib

import jax
import jaxtyping
import numpy as np
import pytest
from jax._src.interpreters import mlir
from jax.experimental.compilation_cache import compilation_cache

# Tests compile much and compute little: half of their time went into optimising machine code and, most of all, into
# XLA's newer way to emit it, which takes three times as long as the older one. Subprocesses inherit both. Tests see the
# programs that users have with JAX_DISABLE_MOST_OPTIMIZATIONS=0, in twice the time.
quick = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") not in ("0", "false")
jax.config.update("jax_disable_most_optimizations", quick)
# XLA ends the process at a flag that it does not know, so not for versions that nobody has tried.
if quick and jax.__version_info__[:2] == (0, 10):
    older = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{older} {os.environ.get('XLA_FLAGS', '')}"
if not quick:
    # XLA's default, said aloud: experiments that choose a level of their own in `__main__` let this one pass, so that a
    # run started as a process has the same last digits as one that goes on in here.
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=3 {os.environ.get('XLA_FLAGS', '')}"
# What tests compile stays, by the million objects: looking through them all as often as Python would took a twentieth
# of the time.
gc.set_threshold(20_000, 20, 50)
# JAX makes an MLIR context for every program that it lowers, and keeps it as long as the program. Each new one looks
# through all that there are: with the ten thousand programs of the tests that came to half of the time, and to two
# thirds of the memory. Here some hundred programs share one.
make_context, lowered = mlir.make_ir_context, itertools.count()
context_of = functools.lru_cache(maxsize=1)(lambda programs: make_context())
mlir.make_ir_context = lambda: context_of(next(lowered) // 200)
# Two cores: without this, every xdist worker would start as many threads as there are cores for its own plots.
os.environ.setdefault("MPLBACKEND", "agg")
jax.config.update("jax_numpy_rank_promotion", "raise")
checked = jaxtyping.jaxtyped
checks, now = {}, threading.local()


def calls_latest(now):
    def latest(*args, **kwargs):
        return now.functions.pop()(*args, **kwargs)

    return latest


latest = calls_latest(now)


def shape(hint):
    """What two annotations have in common that say the same; jaxtyping makes a new one each time."""
    return (hint.array_type, hint.dtypes, hint.dim_str) if hasattr(hint, "dim_str") else hint


def plain(hint):
    """Whether an annotation has no shape in it, nor text that may name one."""
    if isinstance(hint, str) or getattr(hint, "__module__", "").startswith("jaxtyping"):
        return False
    return all(map(plain, typing.get_args(hint)))


def jaxtyped(fn, **options):
    """The checks of a function, made once for all functions of the same lines.

    To make them takes half a millisecond, and a function in a function is defined at each call. Nothing is checked
    where nothing is said of arguments or result, and no shapes where there are only types: a helper in a loop would be
    ten times as slow.
    """
    if not inspect.isfunction(fn):
        return checked(fn, **options)
    if not fn.__annotations__:
        return fn
    if inspect.isgeneratorfunction(fn):
        return checked(fn, **options)
    if "<locals>" not in fn.__qualname__:
        types_alone = all(map(plain, fn.__annotations__.values()))
        return options["typechecker"](fn) if types_alone else checked(fn, **options)
    hints = tuple((name, shape(hint)) for name, hint in fn.__annotations__.items())
    key = fn.__code__, hints, fn.__defaults__, repr(fn.__kwdefaults__), *options.items()
    try:
        check = checks.get(key)
    except TypeError:  # an annotation or a default that cannot be a key
        return checked(fn, **options)
    if check is None:
        # Not `fn` itself, which would be kept for ever with all that it closes over; annotations in quotes are looked
        # up where it was defined.
        stand_in = types.FunctionType(latest.__code__, fn.__globals__, fn.__name__, None, latest.__closure__)
        functools.update_wrapper(stand_in, fn).__signature__ = inspect.signature(fn)
        del stand_in.__wrapped__
        check = checks[key] = checked(stand_in, **options)

    @functools.wraps(fn)
    def wrapped(*args, **kwargs):
        functions = vars(now).setdefault("functions", [])
        before = len(functions)
        functions.append(fn)
        try:
            return check(*args, **kwargs)
        finally:
            del functions[before:]

    return wrapped


def deferred(*given, **options):
    return jaxtyped(*given, **options) if given else lambda fn: jaxtyped(fn, **options)


jaxtyping.jaxtyped = deferred


def settings():
    return (
        jax.config.read("jax_disable_most_optimizations"),
        jax.config.jax_enable_x64,
        jax.config.jax_numpy_rank_promotion,
    )


BEFORE = settings()


@pytest.fixture(autouse=True)
def settings_stay():
    """What a test leaves behind, all later ones of its process have: slower programs, or checks that are off."""
    yield
    assert settings() == BEFORE


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """The examples of recipes train networks, and are slow.

    Of the cases of a table, and of the examples, every JAXFAIR_EVERY-th is played, the same ones each time, on CI's
    second Python, and of all other tests every fifth. It asks what a newer jax or NumPy has changed: that breaks a
    function, and a function has many cases.
    """
    for item in items:
        if item.nodeid.startswith("jaxfair/recipes/"):
            item.add_marker(pytest.mark.slow)
    every = int(os.environ.get("JAXFAIR_EVERY", "1"))
    played, left = [], []
    for item in items:
        one_of_many = hasattr(item, "callspec") or isinstance(item, pytest.DoctestItem)
        out = zlib.crc32(item.nodeid.encode()) % (every if one_of_many else min(every, 5))
        (left if out else played).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = played


def pytest_terminal_summary(terminalreporter):
    """What was left out, and why, a line for each reason: nobody takes that for a pass."""
    skipped = [report.longrepr[-1] for report in terminalreporter.getreports("skipped")]
    for reason in dict.fromkeys(skipped):
        terminalreporter.line(f"{skipped.count(reason)} left out: {str(reason).removeprefix('Skipped: ')}")


@pytest.fixture
def strict_dtype():
    """Implicit dtype promotion is an error, for our own functions (optax and flax are not written for it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module")
def parsers_built_once():
    """For a file that types thousands of commands: simple_parsing takes longer to build a parser than to ask it."""
    from jaxfair.cli import flags

    build, made = flags._Parser, {}

    class Kept:
        def __init__(self, **options):
            self.options = options

        def add_arguments(self, config_class, dest):
            key = config_class, dest, *self.options.items()
            if key not in made:
                made[key] = build(**self.options)
                made[key].add_arguments(config_class, dest=dest)
            self.parser = made[key]

        def __getattr__(self, name):
            return getattr(self.parser, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flags, "_Parser", Kept)
        patch.setattr(flags, "parser", functools.cache(flags.parser))
        yield


@pytest.fixture(scope="module")
def drawn_once():
    """For a file that writes many pages: the SVG of a figure, a file and a part of its page, is drawn once for both."""
    style = importlib.import_module("jaxfair.report.figures.style")  # the package has a function of its name

    draw, known = style._bytes, weakref.WeakKeyDictionary()

    def drawn(figure, kind):
        files = known.setdefault(figure, {})
        if kind not in files:
            files[kind] = draw(figure, kind)
        return files[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "_bytes", drawn)
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """For a test of what stands in records or in words, of a run whose figures another test draws."""
    style = importlib.import_module("jaxfair.report.figures.style")  # the package has a function of its name

    monkeypatch.setattr(style, "_bytes", lambda figure, kind: b"<svg/>")


@pytest.fixture
def intervals_alone(monkeypatch):
    """For hundreds of data sets of which only the intervals are looked at: p-values and visible gaps take most time."""
    for name in ("p_values", "visible_gaps"):
        monkeypatch.setattr(sys.modules["jaxfair.metrics._bootstrap"], name, lambda rule, *_: np.zeros_like(rule.psi))


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """For a file that runs the same programs again, here and in processes of their own: XLA compiles each once.

    Not below jaxlib 0.10.2, where a process on a CPU may hang for ever in reading an executable that another one wrote.
    """
    if jax.__version_info__ < (0, 10, 2):
        yield
        return
    shared = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in shared}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared.items():
            patch.setenv(name.upper(), str(value))
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
