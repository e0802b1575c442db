"""The science of two short experiments; that they run and resume is a law of all experiments."""

import numpy as np
import pytest

from experiments import memorisation, price_of_accuracy
from jaxfair import metrics
from jaxfair.typing import Batch

GROUP = np.array([0, 0, 0, 1, 1, 1, 1, 0])
Y = np.array([0, 1, 1, 0, 1, 1, 0, 0])
SAID = np.array([[0, 1, 0, 1, 1, 0, 0, 1], [1, 1, 1, 0, 0, 1, 0, -1]])
TOLD = np.array([[1, 1, 1, 1, 0, 1, 1, 1], [1, 0, 1, 1, 1, 1, 1, 1]], bool)
SPLIT = Batch(np.zeros((8, 1)), Y, GROUP, np.arange(8), np.ones(8))


def test_gaps_of_a_population_are_those_of_its_pairs_of_network_and_person():
    there = TOLD & (SAID >= 0)
    said, y, group = (np.broadcast_to(a, SAID.shape)[there] for a in (SAID, Y, GROUP))
    people = np.bincount(2 * group + y, minlength=4).reshape(2, 2)
    found = memorisation.gaps(np.stack([people, 0 * people]), memorisation.rates(SAID, SPLIT, TOLD))
    rates = metrics.group_rates(said, y, group, 2)
    changes = [float(rate[1] - rate[0]) for rate in rates]
    assert found["opportunity"] == pytest.approx(changes[0], abs=1e-6)
    assert found["odds"] == pytest.approx(max(map(abs, changes[:2])), abs=1e-6)
    assert found["parity"] == pytest.approx(changes[2], abs=1e-6)


def test_forgotten_are_those_who_were_right_and_are_not():
    pruned = np.where(np.arange(8) < 3, 1 - Y, SAID)
    before, after = (memorisation.Population(a, a, TOLD) for a in (SAID, pruned))
    known = np.arange(8) < 2
    found = memorisation.forgotten(before, after, SPLIT, known)
    # The first network was right about 0, 1 and 6 of whom it saw, the second about 2, 3, 5 and 6.
    assert found["forgotten_memorised"] == found["forgotten_memorised_0"] == 1
    assert found["forgotten_others"] == pytest.approx(1 / 5)
    assert "forgotten_memorised_1" not in found


def test_pairs_change_places_by_what_is_changed():
    """Three networks: the widest far dearer than the others, which then seem to cost nothing."""
    accuracy, worst, cost = (0.80, 0.84, 0.9), (0.9, 0.5, 0.1), (10.0, 20.0, 1000.0)
    records = []
    for seed in range(2):
        for i, width in enumerate((4, 8, 16)):
            row = {"data": "digits", "width": width, "zeros": "dense", "seed": seed, "accuracy": accuracy[i]}
            for resource in price_of_accuracy.COSTS:
                scores = metrics.pepr(accuracy, cost), metrics.pepr(worst, cost)
                row |= {f"cost_{resource}": cost[i], f"pepr_{resource}": float(scores[0][i])}
                row[f"pepr_worst_{resource}"] = float(scores[1][i])
            records.append(row)
    found = price_of_accuracy.orders(records, 1.0)
    turned = {r["changed"]: r["overturned"] for r in found if r["resource"] == "flops" and r["seed"] == 0}
    assert turned[price_of_accuracy.AGAIN] == 0
    assert turned["without the widest networks"] == 1
    assert turned[price_of_accuracy.WORST] == pytest.approx(1 / 3)  # the second is no longer ahead of the first
    assert turned["accuracy alone"] == pytest.approx(2 / 3)  # the widest is, of both
