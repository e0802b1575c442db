"""`recipes.prune(method="bifp")`: the masks are found under the bound, and what is delivered is what was asked for."""

import jax
import numpy as np
import pytest

from jaxfair import data, models, recipes, study

PEOPLE = data.planted(
    key=jax.random.key(0), num_train=512, num_validation=64, num_test=256, minority=0.25, minority_test=128
)
MODEL = models.mlp(2, hidden=(8,))
HOW = {"batch_size": 64, "progress": False}


@pytest.fixture(scope="module")
def dense():
    return recipes.dense(MODEL, PEOPLE, seeds=2, epochs=3, **HOW)


def pruned(dense, **more):
    given = {"method": "bifp", "bound": recipes.ceag(0.02), "sparsity": 0.5, "epochs": 4, "prune_epochs": 2} | more
    return recipes.prune(MODEL, PEOPLE, dense, **given, **HOW)


@pytest.mark.slow
def test_it_delivers_networks_of_the_sparsity_and_goes_on_from_its_folder(dense, tmp_path):
    found = pruned(dense, folder=tmp_path)
    kernels = np.asarray(found.params["Dense_0"]["kernel"])
    half = kernels[0].size // 2
    assert np.sum(kernels == 0, axis=(1, 2)).tolist() == [half, half]
    assert len(found) == 2
    assert {row["epoch"] for row in found.history} == {0, 1}
    masks = sorted(path.name for path in tmp_path.rglob("masks_*.npz"))
    assert masks == ["masks_0.npz", "masks_1.npz"]
    again = pruned(dense, folder=tmp_path)
    np.testing.assert_array_equal(again.params["Dense_0"]["kernel"], kernels)
    with pytest.raises(study.FolderError):
        pruned(dense, folder=tmp_path, levels={"gamma": 1.0})
    with pytest.raises(study.FolderError):
        pruned(dense, folder=tmp_path, method="magnitude")
    # BiP does not know the bound: what it finds are other networks, as sparse.
    plain = np.asarray(pruned(dense, method="bip").params["Dense_0"]["kernel"])
    assert np.sum(plain == 0, axis=(1, 2)).tolist() == [half, half]
    assert not np.array_equal(plain, kernels)


BAD = [
    ({"levels": {"weight_steps": 2}}, "batch_size=64: method='bifp' cuts it into 3; give a multiple."),
    ({"distill": 0.5}, "method='bifp' goes with neither distill= nor order=: leave them out."),
    ({"method": "bfip"}, "method='bfip': choose one of magnitude, bip, bifp."),
    ({"bound": None}, "method='bifp' without a bound: give bound=, or method='bip'."),
    ({"prune_epochs": 0}, "prune_epochs=0: method='bifp' finds its masks in them; give at least 1."),
    ({"levels": {"gamma": -1.0}}, "gamma=-1.0: give a curvature above 0."),
    ({"levels": {"fair": ("mask",)}}, "fair=('mask',): 'mask' is no level"),
]


@pytest.mark.parametrize(("given", "said"), BAD, ids=[said[:24] for _, said in BAD])
def test_what_cannot_be_is_one_line(dense, given, said):
    with pytest.raises(ValueError, match=r".") as refused:
        pruned(dense, **given)
    assert said in str(refused.value)
