"""What docs/sparsity.md and docs/coming_from/jaxpruner.md show runs, and their tables are whole."""

import pathlib
import re
import types

import jax
import optax

from jaxfair import sparsity

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE, GUIDE = ((DOCS / name).read_text() for name in ("sparsity.md", "coming_from/jaxpruner.md"))


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_examples_run_one_after_the_other():
    names = {}
    for text in blocks(PAGE):
        exec(text, names)
    kept = {path: int(mask.sum()) for path, mask in _masks(names["masks"]).items()}
    assert sum(kept.values()) == 20 * 256 + 256 * 256 - 56525  # ceil(0.8 * 70656)

    there, here = blocks(GUIDE)
    assert "jaxpruner." in there
    exec(here, names)
    tx, params = names["tx"], names["params"]
    assert float((params["Dense_1"]["kernel"] == 0).mean()) > 0.85
    gradients = jax.tree.map(jax.numpy.ones_like, params)
    updates, _ = jax.jit(tx.update)(gradients, tx.init(params), params)
    optax.apply_updates(params, updates)


def _masks(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if leaf.ndim}


def test_every_public_function_stands_on_the_page():
    for name in dir(sparsity):
        if isinstance(getattr(sparsity, name), types.FunctionType):
            assert re.search(rf"`{name}[`(]", PAGE), name
