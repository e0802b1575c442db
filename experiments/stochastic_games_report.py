"""What a run of `stochastic_games` found: tables, figures, and a page whose sentences follow from the numbers.

Plain arrays in, files out; nothing here plays. The final distance of a seed is the geometric mean over the last tenth
of its run. Methods are compared by the paired differences of its logarithm on the same seeds, with a t interval; `RULE`
says what counts as a difference.
"""

import importlib.metadata
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console

from jaxfair import metrics, report
from jaxfair.report import figures

OG, OMEGA = "optimistic_gradient", "omega"
DECAY = 0.9  # of Omega wherever it is not varied
#: The optimistic gradient with the optimism of Omega, and with its effective optimism.
CONTROLS = (f"{OG} 1", f"{OG} 10")
#: Ratios nearer to 1 than this are no difference in practice.
MARGIN = 0.02
RULE = (
    f"Two methods count as about the same where the 95 % interval of the ratio contains 1, or the ratio is within "
    f"{100 * MARGIN:g} % of 1."
)

GAMES_IN_WORDS = {
    "bilinear": "x'By; the matrix of every sample is the identity, so that all noise is in the linear terms",
    "bilinear_0.1": "x'By; the singular values of the samples' matrices lie between 0.1 and 1",
    "bilinear_0.01": "x'By; the singular values of the samples' matrices lie between 0.01 and 1",
    "quadratic": "both players have a curvature of 1 besides a weak coupling",
    "quadratic_0.1": "both players have curvatures between 0.1 and 1 besides a weak coupling",
    "quadratic_linear": "x has a curvature of 1, y has none: the shape of a problem with constraints",
    "bilinear_ill_conditioned": "x'By, the singular values of the mean matrix between 0.01 and 1",
    "bilinear_rank_deficient": "x'By with a matrix of half the rank: many solutions, the nearest one counts",
    "bilinear_coordinates": "x'By, each sample showing one coordinate",
    "bilinear_interpolated": "x'By, without noise at the solution",
    "bilinear_additive_noise": "x'By with Gaussian noise that depends on nothing",
    "complex_spectrum": "a quadratic game with eigenvalues from purely imaginary to real",
    "matrix_game": "mixed strategies on simplices",
    "robust_least_squares": "a regression against an adversary who moves the targets",
    "lagrangian_qp": "a quadratic program against the multipliers of its constraints",
    "dirac_gan": "the smallest generative adversarial network, of one number per player",
    "gaussian_mixture_gan": "a small generative adversarial network on a ring of eight Gaussians",
}
METHODS_IN_WORDS = {
    "sgd": "each player follows its own gradient g: w ← w − η g",
    "momentum": "follows an average of gradients, m ← b m + (1 − b) g",
    OG: "adds the change since the last step: w ← w − η (g + o (g − previous g))",
    OMEGA: f"adds the change against an average of past gradients: w ← w − η (g + o (g − m)), decay b = {DECAY:g}",
    "omegam": f"the optimistic gradient on the average itself: w ← w − η (m + o (m − previous m)), b = {DECAY:g}",
    "extragradient": "looks at the gradient after a trial step of extrapolation · η; two calls per step",
    "optimistic_adam": "the optimistic gradient on Adam's direction",
    "lookahead": "ten steps of sgd, of which only the share slow_rate is then kept",
    "lead": "adds a force against the rotation that the other player's move causes; three calls per step",
    "consensus": "also descends the squared norm of the field; two calls per step",
}


def number(value: float) -> str:
    """Three significant digits, and a sign for infinity."""
    if not np.isfinite(value):
        return "∞"
    return f"{value:,.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"


def quartiles(final: np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; infinite where a seed that diverged has a part in it."""
    found = np.quantile(np.minimum(final, 1e300), [0.25, 0.5, 0.75])
    return tuple(np.where(found < 1e200, found, np.inf).tolist())


def diverged(final: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Which seeds ended more than a tenth farther away than they started."""
    return ~(np.asarray(final) <= 1.1 * np.asarray(start, float))


def typical(result: Mapping[str, Any]) -> dict[str, float]:
    """The median distance at the start, game by game."""
    return {game: float(np.median(start)) for game, start in result["start"].items()}


def ratio(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float] | None:
    """The geometric mean of a / b over seeds with its interval; None where a seed is not finite, or there is one."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    found = metrics.paired_difference(np.log(a), np.log(b))
    return tuple(float(np.exp(v)) for v in (found.mean, found.low, found.high))


def say_ratio(found: tuple[float, float, float] | None) -> str:
    """In words: ``0.851 [0.803, 0.911]``."""
    if found is None:
        return "–"
    mean, low, high = (f"{v:.3f}" if 0.1 < v < 10 else f"{v:.3g}" for v in found)
    return f"{mean} [{low}, {high}]"


def judge(found: tuple[float, float, float] | None) -> str:
    """A ratio of distances by `RULE`: "nearer", "farther", "about the same", or "cannot tell"."""
    if found is None or np.isnan(found[0]):
        return "cannot tell"
    mean, low, high = found
    if low <= 1 <= high or abs(mean - 1) < MARGIN:
        return "about the same"
    return "nearer" if mean < 1 else "farther"


# --- tables ------------------------------------------------------------------------------------------------------


def _rows(
    runs: Mapping[str, Mapping[str, Any]], game: str, start: np.ndarray
) -> list[dict[str, Any]]:
    """A row per method of one game, ranked by the median."""
    order = sorted(runs, key=lambda name: quartiles(runs[name]["final"])[1])
    rows = []
    for name, seen in runs.items():
        final = np.asarray(seen["final"], float)
        low, middle, high = quartiles(final)
        rows.append(
            {
                "game": game, "method": name, "median": middle, "lower quartile": low,
                "upper quartile": high, "rank": order.index(name) + 1,
                "diverged": float(diverged(final, start).mean()), **seen["setting"],
            }
        )  # fmt: skip
    return rows


def _readable(
    numbers: pd.DataFrame, marked: Mapping[tuple[str, str], dict[str, str]]
) -> pd.DataFrame:
    """The same as text: quartiles in words, settings in one column with their marks."""
    fixed = ["game", "method", "median", "lower quartile", "upper quartile", "rank", "diverged"]
    rows = []
    for row in numbers.to_dict("records"):
        signs = marked.get((row["game"], row["method"]), {})
        settings = [
            f"{'rate' if name == 'lr' else name} {row[name]:.3g}{signs.get(name, '')}"
            for name in row
            if name not in fixed and not np.isnan(row[name])
        ]
        rows.append(
            {
                "game": row["game"],
                "method": row["method"],
                "distance": number(row["median"]),
                "quartiles": f"{number(row['lower quartile'])} to {number(row['upper quartile'])}",
                "rank": row["rank"],
                "diverged": f"{100 * row['diverged']:.0f} %",
                "settings": ", ".join(settings),
            }
        )
    return pd.DataFrame(rows)


#: Signs of settings, and what they mean.
STILL, BOUND, END = "†", "°", "*"


def marks(result: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, str]]:
    """Of each tuned method the settings that are not inside of what was tried: name -> sign."""
    found = {}
    for at, tuned in result["tuned"].items():
        signs = {"": "", "bound": BOUND, "lower": END, "upper": END}
        found[at] = {
            name: STILL if tuned["still"] and name == "lr" else signs[end]
            for name, end in tuned["ends"].items()
            if end and not (tuned["still"] and name != "lr")
        }
    return found


def _those_with(
    sign: str, marked: Mapping[tuple[str, str], dict[str, str]]
) -> dict[str, list[str]]:
    """Method -> games where it has that sign."""
    found: dict[str, list[str]] = {}
    for (game, method), signs in marked.items():
        if sign in signs.values():
            found.setdefault(method, []).append(game)
    return found


def say_marks(result: Mapping[str, Any]) -> list[str]:
    """A sentence per sign that occurs: which settings are at an end of what was tried, and why."""
    marked = marks(result)
    words = {
        STILL: "never came nearer than the start, so the smallest rate, which moves least, is best and no grid was "
        "extended",
        BOUND: "chose a bound: a second parameter of 0 makes a method plain descent (sgd), a slow_rate of 1 the method "
        "inside",
        END: "still chose an end after the grid had been extended twice, so there may be a better setting outside",
    }  # fmt: skip
    sentences = []
    for sign, text in words.items():
        of = _those_with(sign, marked)
        if of:
            some = "; ".join(f"{method} on {listed(games)}" for method, games in of.items())
            sentences.append(f"{sign} {text}: {some}.")
    return sentences


def method_tables(result: Mapping[str, Any]) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Name -> (text, numbers): all methods tuned, and the settings of Omega's authors."""
    tuned, published = [], []
    for game, start in result["start"].items():
        of_game = {name: run for (g, name), run in result["compared"].items() if g == game}
        tuned += _rows(of_game, game, start)
        runs = {
            label: run
            for (g, _), labels in result["published"].items()
            if g == game
            for label, run in labels.items()
        }
        published += _rows(runs, game, start)
    tables = {"tuned": (_readable(pd.DataFrame(tuned), marks(result)), pd.DataFrame(tuned))}
    if published:
        frame = pd.DataFrame(published)
        tables["published"] = (_readable(frame, {}), frame)
    return tables


def effective(settings: Mapping[str, Any], name: str) -> float:
    """The effective optimism o / (1 - b) of a setting."""
    return float(settings["optimism"]) / (1 - (DECAY if name == OMEGA else 0.0))


def paired_table(result: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Omega against the optimistic gradient, both tuned, game by game."""
    text, numbers = [], []
    for game in result["start"]:
        a, b = (result["compared"][game, name]["final"] for name in (OMEGA, OG))
        found = ratio(a, b)
        mean, low, high = found or (np.nan,) * 3
        levels = {
            f"o / (1 − b) of {words}": effective(result["tuned"][game, name]["chosen"], name)
            for name, words in ((OMEGA, "Omega"), (OG, "the other"))
        }
        text.append(
            {"game": game, "ratio": say_ratio(found), "Omega is": judge(found)}
            | {column: f"{level:.3g}" for column, level in levels.items()}
        )
        numbers.append({"game": game, "ratio": mean, "low": low, "high": high} | levels)
    return pd.DataFrame(text), pd.DataFrame(numbers)


def control_table(result: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Omega against the optimistic gradient with the authors' settings; None where there are none."""
    text, numbers = [], []
    for game in result["start"]:
        runs = {
            label: run
            for name in (OMEGA, OG)
            for label, run in result["published"].get((game, name), {}).items()
        }
        if not {"omega 1", *CONTROLS} <= set(runs):
            continue
        row = {"game": game}
        for label in CONTROLS:
            found = ratio(runs["omega 1"]["final"], runs[label]["final"])
            mean, low, high = found or (np.nan,) * 3
            row[f"against {label}"] = say_ratio(found)
            numbers.append(
                {"game": game, "against": label, "ratio": mean, "low": low, "high": high}
            )
        text.append(row)
    return (pd.DataFrame(text), pd.DataFrame(numbers)) if text else None


def equal_ratios(result: Mapping[str, Any], game: str) -> dict[float, tuple[float, float, float]]:
    """Effective optimism of at least 1 -> ratio Omega / OG on the fresh seeds, where all of both came nearer."""
    seen, start, found = result["equal"][game], result["start"][game], {}
    sides = [np.asarray(seen[name]["final"], float) for name in (OMEGA, OG)]
    for i, level in enumerate(np.asarray(seen["levels"], float)):
        a, b = (side[i] for side in sides)
        pair = ratio(a, b)
        if level >= 1 and pair and (np.maximum(a, b) < start).all():
            found[float(level)] = pair
    return found


def equal_table(result: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Omega against the optimistic gradient at equal effective optimism."""
    text, numbers = [], []
    for game, seen in result["equal"].items():
        ratios, row = equal_ratios(result, game), {"game": game}
        for level in np.asarray(seen["levels"], float):
            if level < 1:
                continue
            found = ratios.get(float(level))
            row[f"{level:g}"] = say_ratio(found)
            mean, low, high = found or (np.nan,) * 3
            numbers.append(
                {"game": game, "effective optimism": level, "ratio": mean, "low": low, "high": high}
            )
        text.append(row)
    return pd.DataFrame(text), pd.DataFrame(numbers)


# --- words -------------------------------------------------------------------------------------------------------


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _by_judgement(numbers: pd.DataFrame) -> dict[str, list[str]]:
    """Judgement -> games, of the paired table."""
    found: dict[str, list[str]] = {}
    for row in numbers.to_dict("records"):
        judged = judge((row["ratio"], row["low"], row["high"]))
        found.setdefault(judged, []).append(row["game"])
    return found


def _from_to(values: Any) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def answer(result: Mapping[str, Any], numbers: pd.DataFrame) -> tuple[str, list[str]]:
    """Whether Omega's gain is more than a larger effective optimism: a verdict, and the paragraphs behind it."""
    judged = _by_judgement(numbers)
    nearer, farther, same = (judged.get(k, []) for k in ("nearer", "farther", "about the same"))
    known = len(nearer) + len(farther) + len(same)
    paragraphs = []
    if not known:
        verdict = "cannot tell"
        paragraphs.append("Cannot tell: too few seeds ended at a finite distance.")
    else:
        if not nearer:
            verdict, words = "No", "Omega's gain is not more than a larger effective optimism"
        elif len(nearer) == known:
            verdict, words = "Yes", "Omega's gain is more than a larger effective optimism"
        else:
            verdict = "In part"
            words = f"Omega's gain is more than a larger effective optimism on {len(nearer)} of {known} games"
        text = f"{verdict}: {words}."
        of = numbers.set_index("game")
        for names, how in (
            (nearer, "nearer to the solution than"), (farther, "farther from the solution than"),
            (same, "about as near as"),
        ):  # fmt: skip
            if names:
                text += (
                    f" With both tuned, Omega ends {how} the optimistic gradient on {listed(names)} "
                    f"(ratio of distances {_from_to(of.loc[names, 'ratio'])})."
                )
        if judged.get("cannot tell"):
            text += (
                f" There is no ratio for {listed(judged['cannot tell'])}, where a seed diverged."
            )
        paragraphs.append(f"{text} {RULE}")
    text = say_published(result)
    if result.get("equal"):
        text += " " + say_equal(result)
    return verdict, [*paragraphs, *([text.strip()] if text.strip() else [])]


def say_published(result: Mapping[str, Any]) -> str:
    """The authors' settings, and the control of the same effective optimism, where Omega gains most."""
    tables = control_table(result)
    if tables is None or tables[1]["ratio"].isna().all():
        return ""
    numbers = tables[1].set_index(["game", "against"])
    game = numbers.xs(CONTROLS[0], level="against")["ratio"].idxmin()
    one, ten = (tuple(numbers.loc[(game, label)]) for label in CONTROLS)
    text = (
        f"With the authors' settings Omega ends at {say_ratio(one)} times the distance of the optimistic gradient with "
        f"optimism 1 on {game}"
    )
    if not np.isnan(ten[0]):
        text += f", but at {say_ratio(ten)} times its distance with optimism 10, which is Omega's effective optimism"
        if one[0] < 1:
            share = min(1.0, 1 - np.log(ten[0]) / np.log(one[0]))
            text += f": a larger optimism alone makes {100 * share:.0f} % of that gain (of its logarithm)"
    return text + "."


def say_equal(result: Mapping[str, Any]) -> str:
    """What is left of Omega's gain at equal effective optimism: the range over the games, level by level."""
    levels: dict[float, list[float]] = {}
    for game in result["equal"]:
        for level, found in equal_ratios(result, game).items():
            levels.setdefault(level, []).append(found[0])
    if not levels:
        return ""
    parts = [f"{_from_to(ratios)} at {level:g}" for level, ratios in sorted(levels.items())]
    text = (
        "At equal effective optimism, each with a rate of its own, Omega's distance divided by the optimistic "
        f"gradient's is, over the games, {listed(parts)}"
    )
    tops = [max(ratios) for _, ratios in sorted(levels.items())]
    if len(tops) > 2 and tops == sorted(tops, reverse=True) and tops[-1] < 1 - MARGIN:
        text += ": the more optimism, the more Omega gains from taking it against an average of gradients"
    return text + "."


# --- figures -----------------------------------------------------------------------------------------------------


def _legend(figure: Any, columns: int) -> Any:
    """The figure with its legend in so many columns: long names of many methods do not fit into one row."""
    for old in list(figure.legends):
        handles, words = old.legend_handles, [text.get_text() for text in old.get_texts()]
        old.remove()
        with figures.style():
            figure.legend(handles, words, loc="outside lower center", ncols=columns)
    return figure


def draw(settings: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, tuple[Any, str, str]]:
    """Name -> figure, caption, and what it says in words."""
    methods, start = list(settings["optimizers"]), typical(result)
    first = result["first"]
    curves = {
        game: {
            name: (np.asarray(run["calls"]), np.asarray(run["distance"], float))
            for (g, name), run in result["compared"].items()
            if g == game
        }
        for game in start
    }
    ends = {
        game: min(runs, key=lambda n: quartiles(result["compared"][game, n]["final"])[1])
        for game, runs in curves.items()
    }
    drawn = {
        "distance": (
            _legend(figures.distance_over_calls(curves, start=start, methods=methods), 4),
            f"Distance to the solution over oracle calls, every method tuned: median and quartiles (bands) of "
            f"{settings['seeds']} fresh seeds. The thin grey line is the typical distance at the start; lower is "
            "better.",
            "Nearest at the end: " + _grouped({game: [name] for game, name in ends.items()}),
        )
    }
    if result.get("equal"):
        panels = {
            game: {
                name: (np.asarray(seen["levels"], float), np.asarray(seen[name]["final"], float).T)
                for name in (OG, OMEGA)
            }
            for game, seen in result["equal"].items()
        }
        drawn["effective_optimism"] = (
            figures.effect(panels, xlabel="effective optimism", start=start),
            "The same effective optimism, o / (1 − b), each point with the learning rate that is best for it: median "
            f"and quartiles of {settings['seeds']} fresh seeds. Where the lines lie on each other, Omega's average of "
            "gradients is worth just as much as the optimism that it stands for; points that are missing diverged.",
            _say_lowest(panels),
        )
    if result.get("paths"):
        drawn["paths"] = (
            figures.paths(
                {name: np.asarray(path, float) for name, path in result["paths"].items()},
                methods=methods,
            ),
            f"The first steps of one seed on {first}, tuned, in a plane through the solution: across is player x along "
            "u, upwards player y along v, the pair of directions that the mean game couples most (its largest singular "
            "value). The dot is the start, the cross the solution.",
            "Distance to the solution within the plane, from the start to the last step that is shown: "
            + "; ".join(
                f"{number(np.linalg.norm(path[0]))} to {number(np.linalg.norm(path[-1]))} for {name}"
                for name, path in result["paths"].items()
            ),
        )
    if result.get("stability"):
        seen = result["stability"]
        maps = {
            name: (np.asarray(seen[name]["distance"], float), np.asarray(seen[name]["radius"]))
            for name in (OG, OMEGA)
        }
        words = []
        for name, (distance, radius) in maps.items():
            agree = np.mean((distance <= start[first]) == (radius < 1))
            words.append(f"{100 * agree:.0f} % of the settings of {name}")
        drawn["stability"] = (
            figures.stability_map(
                np.asarray(seen["rates"]), np.asarray(seen["optimism"]),
                {OG: maps[OG], f"{OMEGA}, decay {DECAY:g}": maps[OMEGA]}, start=start[first],
            ),
            f"Which settings converge on {first}. Colours are the measured distance at the end, grey is no nearer than "
            "the start. The line is theory: inside of it the game without noise converges (the spectral radius of "
            "the method's step is below 1). There a setting may still be too slow for the budget, or be driven away by "
            "noise.",
            f"Measurement and theory agree for {listed(words)}",
        )  # fmt: skip
    if result.get("decay"):
        panels = {
            game: {
                label: (np.asarray(study["decays"]), np.asarray(values, float))
                for label, values in study["curves"].items()
            }
            for game, study in result["decay"].items()
        }
        drawn["decay"] = (
            _legend(figures.effect(panels, xlabel="decay b", log_x=False, start=start), 1),
            f"Omega at different decays b of its average (0 is the optimistic gradient): median and quartiles of "
            f"{settings['seeds']} fresh seeds. With the optimism fixed at 1, a larger decay is also a larger effective "
            "optimism; only where the optimism is tuned too does the line show what the average itself does.",
            _say_decay(result["decay"]),
        )
    if result.get("batch") and len(result["batch"]) > 1:
        sizes = np.asarray(result["batch"]["batches"])
        panel = {
            name: (sizes, np.asarray(values, float))
            for name, values in result["batch"].items()
            if name != "batches"
        }
        seeds = len(next(iter(panel.values()))[1])
        drawn["batch"] = (
            figures.effect({first: panel}, xlabel="samples per minibatch", start=start),
            f"Larger minibatches on {first}, drawn with replacement, settings tuned for each: median and quartiles "
            f"of {seeds} fresh seeds. The number of oracle calls is the same, so a larger minibatch sees more samples.",
            "From the smallest to the largest minibatch the distance goes "
            + "; ".join(
                f"from {number(np.median(v[:, 0]))} to {number(np.median(v[:, -1]))} for {name}"
                for name, (_, v) in panel.items()
            ),
        )  # fmt: skip
    return drawn


def _grouped(of: Mapping[str, list[str]]) -> str:
    """Game -> methods, said the other way round: ``omega on a and b; sgd on c``."""
    found: dict[str, list[str]] = {}
    for game, names in of.items():
        for name in names:
            found.setdefault(name, []).append(game)
    return "; ".join(f"{name} on {listed(games)}" for name, games in found.items())


def _say_lowest(panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> str:
    parts = []
    for game, lines in panels.items():
        at = [
            f"{levels[np.argmin([quartiles(f)[1] for f in final.T])]:g}"
            for levels, final in (lines[name] for name in (OMEGA, OG))
        ]
        parts.append(f"{at[0]} and {at[1]} on {game}")
    return "Lowest for Omega and the optimistic gradient at an effective optimism of " + "; ".join(
        parts
    )


def _say_decay(studies: Mapping[str, Any]) -> str:
    parts = []
    for game, study in studies.items():
        values = np.asarray(study["curves"]["rate and optimism tuned"], float)
        decays = list(study["decays"])
        found = ratio(values[:, decays.index(DECAY)], values[:, decays.index(0.0)])
        if found:
            parts.append(f"{say_ratio(found)} on {game}")
    if not parts:
        return "No pair of decays can be compared: seeds diverged"
    return (
        f"With rate and optimism tuned, the distance at decay {DECAY:g} divided by that at decay 0 is "
        + "; ".join(parts)
    )


# --- the page ----------------------------------------------------------------------------------------------------


def introduction(settings: Mapping[str, Any], result: Mapping[str, Any]) -> report.Section:
    """What is played, by whom, and the words that the rest of the page uses."""
    methods, games = list(settings["optimizers"]), list(result["start"])
    words = []
    for name in methods:
        text = METHODS_IN_WORDS[name.removesuffix("_averaged")]
        if name.endswith("_averaged"):
            text += "; what is looked at is the average of all its iterates so far"
        words.append(f"{name}: {text}.")
    return report.Section(
        title="What is played",
        paragraphs=[
            "In a stochastic game one player, x, wants a function to be small, and another one, y, wants it to be "
            "large. A method sees only the field of a random minibatch: both players' gradients, with y's sign "
            "turned, so that both descend. Distance means that of both players together to the solution. One "
            f"evaluation of a minibatch's field is an oracle call, and every method may make {settings['budget']:,} "
            "of them: one that needs two per step makes half as many steps.",
            "Near a solution with pure rotation a small step of Omega does what one of the optimistic gradient does "
            f"with the optimism o / (1 − b), its effective optimism: ten times o for b = {DECAY:g}. A comparison at "
            "equal o would therefore compare unequal things.",
            f"A method's learning rate and second parameter are tuned on {settings['tuning_seeds']} tuning seeds: on "
            "the grid in the settings below, which is extended (at most twice) where its best setting lies at an end, "
            "and then refined between the neighbours of the best one. What is shown comes from "
            f"{settings['seeds']} fresh seeds, if nothing else is said. The distance at the end is the geometric mean "
            "over the last tenth of the calls.",
        ],
        blocks=[
            report.Points(items=words),
            report.Facts(
                items={name: GAMES_IN_WORDS[name] for name in games}, caption="The games:"
            ),
        ],
    )


def build_page(
    settings: Mapping[str, Any],
    result: Mapping[str, Any],
    tables: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]],
    drawn: Mapping[str, tuple[Any, str, str]],
) -> report.Page:
    """The page, from what was found."""
    pictures = {
        name: report.Picture.from_figure(figure, caption=f"{caption} {words}.", alt=words)
        for name, (figure, caption, words) in drawn.items()
    }
    summary, verdicts = best_methods(tables["tuned"][1]), []
    if "paired" in tables:
        verdict, paragraphs = answer(result, tables["paired"][1])
        summary = [*paragraphs, *summary]
        state = {"Yes": "holds", "No": "violated"}.get(verdict, "open")
        verdicts = [
            report.Verdict(
                state=state,
                text=f"Is Omega's gain more than a larger effective optimism? {verdict}.",
            )
        ]
    note = (
        "Median and quartiles over fresh seeds of the distance at the end. Diverged: the share of seeds that ended "
        "more than a tenth farther away than they started. "
    )
    if result["unsolved"]:
        note += (
            f"The solution of {listed(result['unsolved'])} is not known: there, the norm of the mean field stands for "
            "the distance. "
        )  # fmt: skip
    signs = [sentence.rsplit(":", 1)[0] + "." for sentence in say_marks(result)]
    blocks: dict[str, list[Any]] = {"Every method tuned": [
        pictures["distance"],
        report.Table.from_frame(
            tables["tuned"][0], caption="Distance at the end, every method tuned on seeds of its own.",
            note=" ".join([note.strip(), *signs]),
        ),
    ]}  # fmt: skip
    if "paired" in tables:
        blocks["Omega against the optimistic gradient"] = [
            report.Table.from_frame(
                tables["paired"][0],
                caption="Omega's distance divided by the optimistic gradient's, on the same fresh seeds.",
                note="Both tuned. Geometric mean with its 95 % interval; below 1 Omega is nearer. o / (1 − b) "
                "is the effective optimism that tuning chose. " + RULE,
            )
        ]
        if "equal" in tables:
            blocks["Omega against the optimistic gradient"] += [
                pictures["effective_optimism"],
                report.Table.from_frame(
                    tables["equal"][0],
                    caption="The same ratio at equal effective optimism (columns), each with its own learning rate.",
                    note="Geometric mean with its 95 % interval; a dash where a seed of one of them came no nearer "
                    "than it started. Below 1 both are almost plain descent, see the figure.",
                ),
            ]
    if "published" in tables:
        blocks["With the settings of Omega's authors"] = [
            report.Table.from_frame(
                tables["published"][0], caption="Distance at the end with the published settings.",
                note=note + "The number after a method's name is its second parameter. On quadratic_linear x descends "
                "plainly, and y follows the method at half the rate. optimistic_gradient 10 is a control that the "
                "authors do not have.",
            )
        ]  # fmt: skip
    if "control" in tables:
        blocks["With the settings of Omega's authors"].append(
            report.Table.from_frame(
                tables["control"][0],
                caption="Omega's distance with the published settings divided by the optimistic gradient's.",
                note="Optimism 1 is that of Omega, 10 its effective optimism.",
            )
        )
    for title, name in {
        "Paths": "paths", "Stability": "stability", "Effect of the decay": "decay",
        "Effect of the batch size": "batch",
    }.items():  # fmt: skip
        if name in pictures:
            blocks[title] = [pictures[name]]
    versions = {
        p: importlib.metadata.version(p) for p in ("jaxfair", "jax", "jaxlib", "optax", "numpy")
    }
    blocks["How to repeat this"] = [
        report.Facts(
            items={
                k: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v
                for k, v in settings.items()
            },
            caption="Settings",
        ),
        report.Facts(
            items={
                "python": platform.python_version(), **versions,
                "backend": f"{jax.default_backend()}, {jax.device_count()} device(s)",
            },
            caption="Versions",
        ),
    ]  # fmt: skip
    count = len(result["start"])
    return report.Page(
        title="Stochastic games: what Omega's gain is made of",
        subtitle=f"{count} game{'s' * (count != 1)}, {len(settings['optimizers'])} methods, "
        f"{settings['budget']:,} oracle calls, {settings['seeds']} fresh seeds",
        summary=summary,
        verdicts=verdicts,
        sections=[
            introduction(settings, result),
            *(
                report.Section(title=title, blocks=some, folded=title == "How to repeat this")
                for title, some in blocks.items()
            ),
        ],
        footer="Written by jaxfair.",
    )


def best_methods(numbers: pd.DataFrame) -> list[str]:
    """A sentence on who is first where."""
    wins = numbers[numbers["rank"] == 1].set_index("game")["method"]
    return [
        "Of all methods, tuned, the smallest median distance has "
        + _grouped({game: [name] for game, name in wins.items()})
        + "."
    ]


def write(folder: pathlib.Path, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Writes all files of the run, and prints the tables."""
    tables = method_tables(result)
    if {OG, OMEGA} <= set(settings["optimizers"]):
        tables["paired"] = paired_table(result)
        control = control_table(result)
        tables |= {} if control is None else {"control": control}
    if result.get("equal"):
        tables["equal"] = equal_table(result)
    for name, (text, numbers) in tables.items():
        report.write_table(text, folder, name, numbers=numbers)
    drawn = draw(settings, result)
    for name, (figure, _, _) in drawn.items():
        figures.save(figure, folder / "figures", name)
    page = build_page(settings, result, tables, drawn)
    report.write_page(page, folder / "report.html")

    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    titles = {
        "tuned": "distance at the end, tuned", "published": "with the authors' settings",
        "paired": "Omega's distance divided by the optimistic gradient's, both tuned",
        "control": "the same with the authors' settings",
        "equal": "the same at equal effective optimism",
    }  # fmt: skip
    for name, (text, _) in tables.items():
        report.print_table(text, title=titles[name], console=console)
    console.print("\n".join([*page.summary, *say_marks(result)]), highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)
