"""A network that does not fit the data is one line, before anything is trained."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import cli, data, models, recipes, train
from jaxfair.typing import Model


def people(shape=(4,), classes=2):
    rng = np.random.default_rng(0)
    return data.dataset(rng.normal(size=(60, *shape)), np.arange(60) % classes, np.arange(60) % 3)


def by_hand(init=None, apply=None, prunable=lambda path: path == "hidden"):
    """Two layers by hand, of which a part is another."""

    def first(key, x):
        a, b = jax.random.split(key)
        return {"hidden": jax.random.normal(a, (x.shape[-1], 8)), "out": jax.random.normal(b, (8, 2))}, {}

    def forward(params, state, x, *, train, key=None):
        return jax.nn.relu(x @ params["hidden"]) @ params["out"], state

    def chosen(params, state, x, *, train, key=None):
        return apply(forward(params, state, x, train=train)[0], state)

    return Model(init or first, forward if apply is None else chosen, prunable)


def with_params(more):
    def init(key, x):
        params, state = by_hand().init(key, x)
        return params | more, state

    return by_hand(init)


#: What is wrong -> (the network, words of the line).
WRONG = {
    "one logit": (by_hand(apply=lambda z, s: (z[:, :1], s)), r"logits \[3, 1\] of 3 examples: make it \[3, 2\]"),
    "no axis of logits": (by_hand(apply=lambda z, s: (z[:, 0], s)), r"logits \[3\] of 3 examples: make it \[3, 2\]"),
    "too many logits": (by_hand(apply=lambda z, s: (jnp.tile(z, 2), s)), r"logits \[3, 4\] of 3 examples"),
    "one example's": (by_hand(apply=lambda z, s: (z.mean(0), s)), r"logits \[2\] of 3 examples"),
    "classes": (by_hand(apply=lambda z, s: (z.argmax(-1, keepdims=True) + jnp.zeros((1, 2), int), s)), "logits of int"),
    "no logits": (by_hand(apply=lambda z, s: ("yes", s)), "fails on examples of shape|in place of logits"),
    "no tuple": (by_hand(apply=lambda z, s: z), r"train=False\) gives a \w+, not the pair \(logits, state\)"),
    "three things": (by_hand(apply=lambda z, s: (z, s, z)), r"gives a tuple, not the pair"),
    "another state": (by_hand(apply=lambda z, s: (z, {"count": z})), "a state of another structure"),
    "init: no tuple": (by_hand(lambda key, x: {"hidden": jnp.ones((4, 8))}), r"init gives a dict, not the pair"),
    "init: nothing": (by_hand(lambda key, x: ({}, {})), "has no parameters"),
    "init: None": (by_hand(lambda key, x: None), "init gives a NoneType"),
    "init: raises": (by_hand(lambda key, x: 1 / 0), "init fails on examples of shape .4.*ZeroDivisionError"),
    "integers": (with_params({"count": jnp.arange(3)}), "count is int32, which has no gradient"),
    "masks": (with_params({"mask": jnp.ones(3, bool)}), "mask is bool, which has no gradient"),
    "features": (by_hand(lambda key, x: ({"hidden": jnp.ones((5, 8)), "out": jnp.ones((8, 2))}, {})),
                 r"apply\(..., train=False\) fails on examples of shape \[4\]"),
    "nan": (with_params({"bias": jnp.full(3, jnp.nan)}), "bias of seed 0 has nan or infinity before the first step"),
}  # fmt: skip


@pytest.fixture
def untrained(monkeypatch):
    """Nothing is trained."""

    def trains(*args, **options):
        raise AssertionError("it was trained")

    for name in ("dense", "fit"):
        monkeypatch.setattr(train, name, trains)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_one_line_before_training(wrong):
    model, words = WRONG[wrong]
    with pytest.raises(recipes.ModelError, match=words) as raised:
        recipes.dense(model, people(), seeds=1, progress=False)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_module_is_told_where_it_goes():
    with pytest.raises(recipes.ModelError, match=r"a Dense is no Model: put it behind jaxfair\.models\.linen"):
        recipes.check_model(nn.Dense(2), people())


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("wrong", ["one logit", "no axis of logits", "too many logits", "no tuple", "integers", "nan"])
def test_networks_of_ones_own_that_do_not_fit_are_not_pruned(wrong):
    model, words = WRONG[wrong]
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    with pytest.raises(recipes.ModelError, match=words):
        recipes.prune(model, people(), recipes.networks(params, state), sparsity=0.5, progress=False)


@pytest.mark.usefixtures("untrained")
def test_networks_of_another_model_are_not_pruned():
    mine = people()
    params, state = models.mlp(2, hidden=(8,)).init(jax.random.key(0), jnp.zeros((1, 4)))
    with pytest.raises(recipes.ModelError, match=r"apply\(..., train=False\) fails on examples of shape \[4\]"):
        recipes.prune(models.mlp(2, hidden=(16,)), mine, recipes.networks(params, state), sparsity=0.5)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("prunable", "words"),
    [
        (lambda path: False, r"nothing of the network may be pruned: prunable\(\) says no to all of hidden, out;"),
        (lambda path: path == "bias", "nothing of the network may be pruned"),  # a scalar is no pool
        (lambda path: path["kernel"], r"prunable\('bias'\) fails \(TypeError"),
        (lambda: True, r"prunable\('bias'\) fails \(TypeError"),
    ],
)
def test_nothing_prunable_is_said_before_training(prunable, words):
    model = by_hand(with_params({"bias": jnp.zeros(())}).init if "all of" not in words else None, prunable=prunable)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    with pytest.raises(recipes.ModelError, match=words):
        recipes.prune(model, people(), recipes.networks(params, state), sparsity=0.5, progress=False)
    with pytest.raises(recipes.ModelError, match=words):
        recipes.check_model(model, people(), pruned=True)


@pytest.mark.parametrize("name", ["cifar_resnet20", "small_cnn", "resnet18", "mobilenet_v2", "vit_tiny"])
def test_grey_images_are_told_of_the_axis_that_is_missing(name):
    model = models.small_cnn(2) if name == "small_cnn" else models.build(name, 2)
    with pytest.raises(
        recipes.ModelError, match=r"\[16, 16\]; convolutions take images \[N, H, W, C\].*x\[..., None\]|logits"
    ):
        recipes.check_model(model, people((16, 16)))


@pytest.mark.parametrize("name", ["mlp", "cifar_resnet20", "resnet18", "mobilenet_v2", "vit_tiny"])
@pytest.mark.slow
def test_every_model_of_the_library_fits(name):
    recipes.check_model(models.build(name, 2), people((32, 32, 3)), pruned=True, saved=True)


def test_what_could_not_be_written_is_said_before_training():
    params = {"layers": [jnp.ones((4, 8)), jnp.ones((8, 2))]}

    def apply(params, state, x, *, train, key=None):
        return x @ params["layers"][0] @ params["layers"][1], state

    model = Model(lambda key, x: (params, {}), apply, lambda path: path == "layers/0")
    recipes.check_model(model, people(), pruned=True)
    with pytest.raises(recipes.ModelError, match="cannot be written to a file"):
        recipes.check_model(model, people(), saved=True)


#: What a file of the user's holds -> words of the line.
FILES = {
    "def make(num_classes):\n    raise KeyError('weights')": "'make' of .* fails when it is called with 2.*KeyError",
    "def make():\n    ...": "fails when it is called with 2, the number of classes: TypeError",
    "def make(num_classes):\n    ...": "gives a NoneType, not a Model",
    "import flax.linen as nn\ndef make(n):\n    return nn.Dense(n)": "gives a Dense, not",
    "import sys\nsys.exit(3)": "cannot be run: SystemExit: 3",
    "def make(:": "cannot be run: SyntaxError",
    "import no_such_module": "cannot be run: ModuleNotFoundError: No module named",
    "def maker(n): ...": "has no function 'make' that makes a model; did you mean 'maker'",
    "make = 3": "has no function 'make'",
    "from jaxfair import models\ndef make(n):\n    return models.mlp(1)": "logits .3, 1. of 3 examples",
    "from jaxfair import models\ndef make(n):\n    return models.mlp(n, hidden=())": "nothing of the network may be pr",
}


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("text", FILES)
def test_a_file_that_makes_no_network_is_one_line_and_exit_code_2(text, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(text)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "my.npz", x=rng.normal(size=(60, 4)), y=np.arange(60) % 2, group=np.arange(60) % 3)
    flags: Any = [f"--data={tmp_path / 'my.npz'}", f"--model={tmp_path / 'mine.py'}:make", f"--out={tmp_path / 'out'}"]
    assert cli.main(["prune", *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxfair prune: ")
    assert err.count("\n") == 1
    assert re.search(FILES[text], err), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [False, True])
def test_a_convolution_that_takes_a_batch_of_grey_images_for_one_is_found(inside):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            hidden = nn.relu(nn.Conv(4, (3, 3), name="hidden")(x[..., None] if inside else x))
            return nn.Dense(2)(hidden.reshape(len(x), -1))

    model = models.linen(Net(), prunable=lambda path: path == "hidden/kernel")
    if inside:
        recipes.check_model(model, people((6, 6)))
    else:
        with pytest.raises(recipes.ModelError, match=r"mixes examples of shape \[6, 6\].* x\[\.\.\., None\]"):
            recipes.check_model(model, people((6, 6)))
    recipes.check_model(models.mlp(2), people((6, 6)), pruned=True)
