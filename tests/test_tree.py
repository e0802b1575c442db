"""`cond_any` stays a conditional under vmap, and gives every lane what `lax.cond` would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxfair import tree

X = jnp.array([[0.5, 3.0], [4.0, -1.0], [2.5, 2.0]])  # [3, 2]


def restart(x):
    return tree.cond_any(x["a"] > 2, triple, add_one, x)


def triple(x):
    return {"a": x["a"] * 3.0, "b": x["b"] - 1.0}


def add_one(x):
    return {"a": x["a"] + 1.0, "b": x["b"]}


def by_hand(a, b):
    return (a * 3, b - 1) if a > 2 else (a + 1, b)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_every_lane_is_as_in_a_python_loop(wrap, strict_dtype):
    out = wrap(jax.vmap(jax.vmap(restart)))({"a": X, "b": X * 2})
    for i, j in np.ndindex(X.shape):
        single = wrap(restart)({"a": X[i, j], "b": X[i, j] * 2})
        expected = by_hand(float(X[i, j]), float(X[i, j]) * 2)
        assert (float(out["a"][i, j]), float(out["b"][i, j])) == expected
        assert (float(single["a"]), float(single["b"])) == expected


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_stays_a_conditional_in_the_compiled_program(depth):
    def mapped(f):
        for _ in range(depth):
            f = jax.vmap(f)
        return f

    x = {"a": X[(0,) * (2 - depth)], "b": X[(0,) * (2 - depth)]}
    assert "conditional(" in jax.jit(mapped(restart)).lower(x).compile().as_text()
    if depth:  # and `lax.cond` does not: this test can fail
        plain = mapped(lambda x: lax.cond(x["a"] > 2, triple, add_one, x))
        assert "conditional(" not in jax.jit(plain).lower(x).compile().as_text()


def test_the_rare_branch_runs_only_when_a_lane_wants_it():
    ran = []

    def rare(x):
        jax.debug.callback(lambda _: ran.append(1), x)
        return x * 0.0

    def steps(x):  # x grows by one per step and starts again at 3
        return lax.scan(lambda x, _: (tree.cond_any(x >= 3, rare, lambda x: x + 1, x), x), x, None, 8)

    _, seen = jax.jit(jax.vmap(steps))(jnp.array([0.0, 0.0]))
    jax.effects_barrier()
    assert seen.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]] * 2
    assert len(ran) == 2 * 2  # two steps, two lanes; a select would have called it 16 times


def test_pred_and_closures_may_be_batched_or_not():
    def f(flag, x, scale):
        return tree.cond_any(flag, lambda: x * scale, lambda: x + 0.0)

    flags = jnp.array([True, False, False])
    x = jnp.array([1.0, 2.0, 3.0])
    assert jax.vmap(f)(flags, x, x).tolist() == [1, 2, 3]
    assert jax.vmap(f, (None, 0, 0))(True, x, x).tolist() == [1, 4, 9]
    assert jax.vmap(f, (0, None, None))(flags, 2.0, 5.0).tolist() == [10, 2, 2]
    assert jax.vmap(f, (0, 0, None), axis_size=3)(flags, x, 2.0).tolist() == [2, 2, 3]


def test_gradients_pass_through():
    def loss(x):
        return tree.cond_any(x > 2, lambda x: x**3, lambda x: x**2, x)

    x = jnp.array([1.0, 3.0])
    assert jax.grad(lambda x: jax.vmap(loss)(x).sum())(x).tolist() == [2, 27]
    assert jax.vmap(jax.grad(loss))(x).tolist() == [2, 27]
    assert jax.jvp(jax.vmap(loss), (x,), (jnp.ones(2),))[1].tolist() == [2, 27]


def test_paths_of_all_kinds_of_trees():
    from jaxfair.typing import Model

    mixed = {"Conv_0": {"kernel": 1}, "heads": [2, (3,)], "m": Model(4, 5, 6)}
    names = ["Conv_0/kernel", "heads/0", "heads/1/0", "m/init", "m/apply", "m/prunable"]
    assert tree.paths(mixed) == names
    assert jax.tree.leaves(tree.map_with_path(lambda path, x, y: path, mixed, mixed)) == names
    assert tree.paths(jnp.ones(3)) == [""]


def test_size_counts_shapes_too():
    assert tree.size({"a": jax.ShapeDtypeStruct((3, 4), jnp.float32), "b": jnp.zeros(())}) == 13
    assert tree.size({}) == 0
