"""A network of one's own behind the seam: Linen, NNX, a pytree of arrays as Equinox makes them, and plain functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxfair import data, models, sparsity, train, tree
from jaxfair.typing import Model

HIDDEN = 16


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(HIDDEN, name="hidden")(x.reshape(len(x), -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(10, name="last")(x)


class NNXNet(nnx.Module):
    def __init__(self, *, rngs):
        self.hidden = nnx.Linear(64, HIDDEN, rngs=rngs)
        self.norm = nnx.BatchNorm(HIDDEN, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(HIDDEN, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))
        return self.last(self.drop(x))


@jax.tree_util.register_pytree_with_keys_class
class ModuleNet:
    """A module that is a pytree of its arrays and is called on one example, as Equinox has it."""

    def __init__(self, hidden, last):
        self.hidden, self.last = hidden, last

    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey
        return ((key("hidden"), self.hidden), (key("last"), self.last)), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*children)

    def __call__(self, x):
        return jax.nn.relu(x.reshape(-1) @ self.hidden) @ self.last


def prunable(path):
    return path in ("hidden/kernel", "hidden")


def random_layers(key):
    a, b = jax.random.split(key)
    return jax.random.normal(a, (64, HIDDEN)) / 8, jax.random.normal(b, (HIDDEN, 10)) / 4


def functions():
    def init(key, x):
        hidden, last = random_layers(key)
        return {"hidden": hidden, "last": last}, {}

    def apply(params, state, x, *, train, key=None):
        return jax.nn.relu(x.reshape(len(x), -1) @ params["hidden"]) @ params["last"], state

    return Model(init, apply, prunable)


def equinox_like():
    def init(key, x):
        return ModuleNet(*random_layers(key)), {}

    def apply(net, state, x, *, train, key=None):
        return jax.vmap(net)(x), state

    return Model(init, apply, prunable)


OWN = {
    "linen": lambda: models.linen(LinenNet(), prunable=prunable),
    "nnx": lambda: models.nnx(NNXNet, prunable=prunable),
    "equinox": equinox_like,
    "functions": functions,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OWN)
def test_it_trains_side_by_side_and_is_pruned(kind):
    model, digits = OWN[kind](), data.load("digits")
    tx = sparsity.prune(
        optax.adam(3e-3),
        sparsity.polynomial(0.8, begin=0, end=30, every=10),
        prunable=model.prunable,
    )
    keys = jax.random.split(jax.random.key(0), 2)
    found = train.dense(model, digits.train, tx=tx, keys=keys, epochs=8, batch_size=126)
    for path, leaf in zip(tree.paths(found.params), jax.tree.leaves(found.params), strict=True):
        if prunable(path):
            assert (np.asarray(leaf) == 0).sum(axis=(1, 2)).tolist() == [
                820,
                820,
            ]  # ceil(0.8 * 1024)
    predict = train.predictor(model.apply, train.plan(model, digits.train))
    label = np.asarray(predict(found.params, found.model_state, digits.test).label)
    assert ((label == digits.test.y).mean(axis=1) > 0.7).all()
    assert not np.array_equal(label[0], label[1])


def made():
    model = OWN["nnx"]()
    params, state = model.init(jax.random.key(3), jnp.zeros((1, 8, 8, 1)))
    module = NNXNet(rngs=nnx.Rngs(jax.random.key(3)))
    return model, params, state, module, jax.random.normal(jax.random.key(4), (7, 8, 8, 1))


def test_an_nnx_module_computes_what_it_computes_by_itself():
    model, params, state, module, x = made()
    assert jax.tree.map(jnp.shape, params["hidden"]) == {"kernel": (64, HIDDEN), "bias": (HIDDEN,)}
    assert np.array_equal(params["hidden"]["kernel"], module.hidden.kernel[...])
    logits, same = model.apply(params, state, x, train=False)
    assert same is state
    module.eval()
    assert np.array_equal(logits, module(x))

    # In training: the statistics of the batch, and their running mean. Without dropout, whose keys are ours.
    plain = models.nnx(without_dropout, prunable=prunable)
    module.train()
    module.drop.rate = 0.0
    logits, new = plain.apply(params, state, x, train=True)
    assert np.array_equal(logits, module(x))
    assert np.array_equal(new["norm"]["mean"], module.norm.mean[...])
    assert np.array_equal(new["norm"]["var"], module.norm.var[...])
    assert not np.array_equal(new["norm"]["var"], state["norm"]["var"])


def without_dropout(*, rngs):
    net = NNXNet(rngs=rngs)
    net.drop = nnx.Dropout(0.0)
    return net


def test_an_nnx_module_draws_from_the_key_of_the_call():
    model, params, state, _, x = made()
    one, two = (model.apply(params, state, x, train=True, key=jax.random.key(k))[0] for k in (0, 1))
    again = model.apply(params, state, x, train=True, key=jax.random.key(0))[0]
    assert np.array_equal(one, again)  # pure: nothing is left behind by a call
    assert not np.array_equal(one, two)
    with pytest.raises(ValueError, match="draws random numbers in training"):
        model.apply(params, state, x, train=True)


def test_an_nnx_module_is_compiled_once_and_maps():
    model, params, state, _, x = made()
    traces = []

    @jax.jit
    def step(params, state, key):
        traces.append(1)
        return model.apply(params, state, x, train=True, key=key)

    for number in range(3):
        _, state = step(params, state, jax.random.key(number))
    assert len(traces) == 1
    keys = jax.random.split(jax.random.key(5), 3)
    lanes = jax.vmap(lambda key: model.init(key, x[:1]))(keys)
    rows = jax.vmap(lambda p, s: model.apply(p, s, x, train=False)[0])(*lanes)
    alone = jnp.stack([model.apply(*model.init(key, x[:1]), x, train=False)[0] for key in keys])
    np.testing.assert_allclose(rows, alone, rtol=1e-5, atol=1e-6)  # a batched product sums in another order


def test_a_module_that_is_told_whether_it_trains():
    class Told(nnx.Module):
        def __init__(self, *, rngs):
            self.last = nnx.Linear(2, 2, rngs=rngs)

        def __call__(self, x, *, train):
            return self.last(x) + (1.0 if train else 0.0)

    model = models.nnx(Told, prunable=lambda path: True)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 2)))
    assert state == {}
    on, off = (model.apply(params, state, jnp.ones((1, 2)), train=t)[0] for t in (True, False))
    assert (on - off).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("word", ["train", "training", "is_training", "deterministic", "use_running_average"])
def test_a_module_with_a_word_of_its_own_is_told_in_it(word):
    """With its default it would train where it predicts, or the other way round."""
    on = {"deterministic": False, "use_running_average": False}.get(word, True)
    scope = {"nnx": nnx}
    exec(
        "class Told(nnx.Module):\n"
        "    def __init__(self, *, rngs):\n"
        "        self.last = nnx.Linear(2, 2, rngs=rngs)\n"
        "        self.drop = nnx.Dropout(0.5, rngs=rngs)\n"
        f"    def __call__(self, x, *, {word}={on}):\n"
        f"        return self.last(self.drop(x, deterministic=({word} != {on})))\n",
        scope,
    )
    model = models.nnx(scope["Told"], prunable=lambda path: True)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 2)))
    x = jnp.ones((8, 2))
    quiet = [model.apply(params, state, x, train=False, key=jax.random.key(k))[0] for k in (0, 1)]
    loud = [model.apply(params, state, x, train=True, key=jax.random.key(k))[0] for k in (0, 1)]
    assert np.array_equal(*quiet)
    assert not np.array_equal(*loud)


def test_an_array_that_is_no_variable_is_named():
    class Bare(nnx.Module):
        def __init__(self, *, rngs):
            self.last = nnx.Linear(2, 2, rngs=rngs)
            self.mean = jnp.ones(2)

        def __call__(self, x):
            return self.last(x - self.mean[None])

    model = models.nnx(Bare, prunable=lambda path: True)
    with pytest.raises(ValueError, match=r"mean of the module is an array and no nnx\.Variable"):
        model.init(jax.random.key(0), jnp.zeros((1, 2)))
