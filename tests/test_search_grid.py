"""Grids that grow where their end is best, and are refined around the best."""

import numpy as np

from jaxfair import search


def tuned(distance, good=np.inf):
    """What tuning finds if the distance at the end is a function of the settings; and the grids that it played."""
    grids = []

    def play(settings):
        grids.append(settings)
        return distance(*settings.values())[:, None] * np.ones((1, 2))  # of two seeds

    axes = {"lr": search.Axis((0.01, 0.1)), "optimism": search.Axis((0.0, 1.0, 10.0))}
    score = lambda results: np.log(results).mean(axis=-1)
    return search.tune(axes, play, score=score, good=good), grids


def bowl(lr, optimism):
    """Of settings: the distance is smallest there."""

    def distance(rates, optimisms):
        return 0.01 * np.exp(np.log(rates / lr) ** 2 + np.log((optimisms + 1e-9) / optimism) ** 2)

    return distance


def test_a_grid_grows_where_its_end_is_best_and_is_refined_around_the_best():
    inside, grids = tuned(bowl(0.08, 1.2))
    assert inside.extended == 1  # of two rates both are ends
    outside, grids = tuned(bowl(0.5, 90.0))
    assert outside.ends == {"lr": "", "optimism": ""}
    assert len(grids) == outside.extended + 2
    assert {len(grid["lr"]) for grid in grids} == {6}  # so one compiled program plays all of them
    assert 0.5 / 3 < outside.chosen["lr"] < 3 * 0.5
    assert 90 / 3 < outside.chosen["optimism"] < 3 * 90
    unrefined = outside.results[: 6 * (len(grids) - 1)]
    assert outside.results.min() < unrefined.min()
    assert len(outside.results) == len(outside.settings["lr"]) == 6 * len(grids)


def test_a_setting_at_an_end_is_marked_with_its_reason():
    falling, grids = tuned(lambda lr, optimism: 0.5 / (1 + lr))
    assert falling.extended == 2
    assert falling.ends["lr"] == "upper"
    assert len(grids) == 4
    assert "*, optimism" in falling.words()

    least, _ = tuned(lambda lr, o: 0.1 + o + np.log(lr / 0.03) ** 2)
    assert least.chosen["optimism"] == 0
    assert least.ends["optimism"] == "bound"
    assert least.words().endswith("optimism 0°")


def test_a_method_that_never_moves_is_left_alone():
    away, grids = tuned(lambda lr, o: np.exp(lr), good=np.log(0.95))
    assert away.still
    assert len(grids) == 1
    assert away.words().endswith("†")


def test_grids_stay_within_the_bounds_of_their_parameter():
    axis = search.Axis((0.0, 0.5, 0.9), high=1.0)
    assert axis.beyond("upper", axis.values) == (0.95, 0.975, 0.9875)
    assert all(0.5 < v < 1 for v in axis.around(0.9, axis.values))
    assert axis.around(0.0, axis.values) == (0.0, 0.1667, 0.3333)
    assert axis.end(0.0, axis.values) == "bound"
    share = search.Axis((0.1, 0.5, 1.0), high=1.0)
    assert share.around(1.0, share.values) == (0.6667, 0.8333, 1.0)
    rates = search.Axis((0.01, 0.1))
    assert rates.beyond("lower", rates.values) == (0.0001, 0.001)


def test_a_setting_that_fails_is_never_chosen():
    axes = {"rate": search.Axis((0.01, 0.1, 1.0))}
    fails_beyond = lambda settings: np.where(settings["rate"] < 0.5, settings["rate"], np.nan)
    assert search.tune(axes, fails_beyond, extensions=0).chosen["rate"] <= 0.01
    fails = search.tune(axes, lambda settings: np.full(3, np.nan))
    assert fails.still
    assert fails.words().endswith("†")
