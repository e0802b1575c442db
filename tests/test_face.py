"""What a person sees first: `import jaxfair`, its rooms, and what they answer to a wrong guess."""

import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

import jaxfair

PACKAGE = pathlib.Path(jaxfair.__file__).parent


def python(script: str) -> str:
    """What a fresh process prints: without the shape checks of these tests, as a user has it."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rooms():
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    return folders | {p.stem for p in PACKAGE.glob("*.py") if not p.stem.startswith("_")}


def test_an_import_loads_nothing_heavy_and_shows_every_room():
    printed = python("""
        import sys, jaxfair
        print(*dir(jaxfair))
        print(*{"jax", "flax", "numpy", "optax"} & set(sys.modules))
        print(jaxfair.sparsity.prune.__name__, "flax" in sys.modules)
    """)
    shown, heavy, then = printed.splitlines()
    assert {name for name in shown.split() if not name.startswith("_")} == rooms()
    assert "__version__" in shown.split()
    assert heavy == ""
    assert then == "prune False"


def test_there_is_one_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", jaxfair.__version__)
    project = (PACKAGE.parent / "pyproject.toml").read_text()
    assert "\nversion = {" in project  # read from the package
    assert jaxfair.__version__ not in project
    assert f"\nversion: {jaxfair.__version__}\n" in (PACKAGE.parent / "CITATION.cff").read_text()


def test_a_room_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'sparsty'"):
        _ = jaxfair.sparsty
    assert not hasattr(jaxfair, "_sparsity")


def test_a_missing_package_is_not_hidden():
    printed = python("""
        import sys
        sys.modules["optax"] = None
        import jaxfair
        try:
            jaxfair.optim
        except ModuleNotFoundError as error:
            print(error.name)
    """)
    assert printed == "optax\n"


#: What a person writes -> what it should have been.
GUESSES = {
    # made by a call, and given without one
    "prune(score=sparsity.movement)": "sparsity.movement()",
    "prune(score=sparsity.random)": "sparsity.random(key)",
    "prune(distribution=sparsity.erk)": "sparsity.erk()",
    "prune(distribution=sparsity.per_path)": "sparsity.per_path(sparsities)",
    "prune(structure=sparsity.channel)": "sparsity.channel()",
    "prune(structure=sparsity.n_by_m)": "sparsity.n_by_m(n, m)",
    "prune(schedule=sparsity.constant)": "sparsity.constant(sparsity)",
    "regrow(score=sparsity.fisher)": "sparsity.fisher()",
    "regrow(first=sparsity.random)": "sparsity.random(key)",
    "regrow(structure=sparsity.channel)": "sparsity.channel()",
    "regrow(drop=sparsity.cosine_drop)": "sparsity.cosine_drop(first, end)",
    "rigl(schedule=sparsity.periodic)": "sparsity.periodic(sparsity, every=..., end=...)",
    "straight_through(structure=sparsity.block)": "sparsity.block(shape)",
    "one_shot(distribution=sparsity.erk)": "sparsity.erk()",
    "one_shot(score=sparsity.adam_fisher)": "sparsity.adam_fisher()",
    "lottery(structure=sparsity.channel)": "sparsity.channel()",
    "edge_popup(distribution=sparsity.erk)": "sparsity.erk()",
    # given as they are, and called
    "prune(score=sparsity.magnitude())": "sparsity.magnitude",
    "prune(score=sparsity.saliency())": "sparsity.saliency",
    "prune(distribution=sparsity.uniform())": "sparsity.uniform",
    "prune(distribution=sparsity.global_())": "sparsity.global_",
    "prune(structure=sparsity.unstructured())": "sparsity.unstructured",
    "regrow(grow=sparsity.by_gradient())": "sparsity.by_gradient",
    "regrow(grow=sparsity.at_random())": "sparsity.at_random",
}
#: A member of no axis, or of another one -> the choices that stand in the answer.
STRANGERS = {
    "prune(distribution='erk')": ("sparsity.uniform", "sparsity.erk()"),
    "prune(structure=sparsity.uniform)": ("sparsity.unstructured", "sparsity.channel()"),
    "prune(score=sparsity.uniform)": ("sparsity.magnitude", "sparsity.movement()"),
    "prune(schedule=0.9)": ("sparsity.constant(sparsity)", "sparsity.polynomial(final, "),
    "regrow(grow=sparsity.uniform)": ("sparsity.by_gradient", "sparsity.at_random"),
}


@pytest.fixture(scope="module")
def answers():
    script = """
        import jax, jax.numpy as jnp, optax
        from jaxfair import sparsity

        def every(path):
            return True

        def prune(schedule=sparsity.constant(0.5), **axes):
            sparsity.prune(optax.sgd(0.1), schedule, prunable=every, **axes)

        def straight_through(**axes):
            sparsity.straight_through(optax.sgd(0.1), sparsity.constant(0.5), prunable=every, **axes)

        def regrow(grow=sparsity.by_gradient, **axes):
            sparsity.regrow(optax.sgd(0.1), sparsity.constant(0.5), key=jax.random.key(0),
                            prunable=every, grow=grow, **axes)

        def rigl(schedule):
            sparsity.rigl(optax.sgd(0.1), schedule, key=jax.random.key(0), prunable=every)

        def one_shot(**axes):
            sparsity.one_shot({"w": jnp.ones(4)}, 0.5, prunable=every, **axes)

        def lottery(**axes):
            sparsity.lottery_ticket(None, {"w": jnp.ones(4)}, rounds=1, prunable=every, **axes)

        def edge_popup(**axes):
            sparsity.edge_popup({"w": jnp.ones(4)}, 0.5, prunable=every, **axes)

        for guess in %s:
            try:
                eval(guess)
            except TypeError as error:
                print(error)
            else:
                print("nothing")
    """
    asked = [*GUESSES, *STRANGERS]
    return dict(zip(asked, python(script % asked).splitlines(), strict=True))


@pytest.mark.parametrize("guess", GUESSES)
def test_a_wrong_guess_is_answered_by_what_was_meant(answers, guess):
    assert answers[guess].endswith(f"did you mean {GUESSES[guess]}?")


@pytest.mark.parametrize("guess", STRANGERS)
def test_what_is_no_member_is_answered_by_the_choices(answers, guess):
    assert "choose from" in answers[guess]
    for choice in STRANGERS[guess]:
        assert choice in answers[guess]
