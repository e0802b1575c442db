"""What a run of `stochastic_games` found: tables, figures, and a page whose sentences follow from the numbers.

Plain arrays in, files out; nothing here plays. The final distance of a seed is the geometric mean over the last tenth
of its run. Methods are compared by the paired differences of its logarithm on the same seeds, with a t interval.
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


def number(value: float) -> str:
    """Three significant digits, and a word for infinity."""
    return "∞" if not np.isfinite(value) else f"{value:.3g}"


def quartiles(final: np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; infinite where a seed that diverged has a part in it."""
    found = np.quantile(np.minimum(final, 1e300), [0.25, 0.5, 0.75])
    return tuple(np.where(found < 1e200, found, np.inf).tolist())


def diverged(final: np.ndarray, start: float) -> np.ndarray:
    """Which seeds ended farther away than a game typically starts."""
    return ~(np.asarray(final) <= start)


def ratio(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float] | None:
    """The geometric mean of a / b over seeds with its interval; None where a seed is not finite, or there is one."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    found = metrics.paired_difference(np.log(a), np.log(b))
    return tuple(float(np.exp(v)) for v in (found.mean, found.low, found.high))


def say_ratio(found: tuple[float, float, float] | None) -> str:
    """In words: ``0.8512 [0.8034, 0.9106]``."""
    return "–" if found is None else f"{found[0]:.4g} [{found[1]:.4g}, {found[2]:.4g}]"


# --- tables ------------------------------------------------------------------------------------------------------


def _rows(runs: Mapping[str, Mapping[str, Any]], game: str, start: float) -> list[dict[str, Any]]:
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


def _readable(numbers: pd.DataFrame, edges: Mapping[tuple[str, str], list[str]]) -> pd.DataFrame:
    """The same as text: quartiles in brackets, settings in one column."""
    fixed = ["game", "method", "median", "lower quartile", "upper quartile", "rank", "diverged"]
    rows = []
    for row in numbers.to_dict("records"):
        at_edge = edges.get((row["game"], row["method"]), [])
        settings = [
            f"{name} {row[name]:g}{'*' if name in at_edge else ''}"
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


def edges(result: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """Which chosen settings lie at an end of their grid, so that a wider grid might have done better."""
    found = {}
    for at, tuned in result["tuned"].items():
        grid = tuned["settings"]
        found[at] = [
            name
            for name, value in tuned["chosen"].items()
            if len(set(grid[name])) > 1 and value in (min(grid[name]), max(grid[name]))
        ]
    return found


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
    tables = {"tuned": (_readable(pd.DataFrame(tuned), edges(result)), pd.DataFrame(tuned))}
    if published:
        frame = pd.DataFrame(published)
        tables["published"] = (_readable(frame, {}), frame)
    return tables


def effective(settings: Mapping[str, Any], name: str) -> np.ndarray:
    """The effective optimism o / (1 - b) of settings."""
    return np.asarray(settings["optimism"], float) / (1 - (DECAY if name == OMEGA else 0.0))


def by_effective_optimism(tuned: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """``([X], [S, X])``: at every effective optimism the final distances with the best learning rate."""
    final = np.asarray(tuned["final"], float)
    level = np.round(effective(tuned["settings"], name), 6)
    levels = np.unique(level)
    columns = []
    for value in levels:
        some = final[level == value]
        with np.errstate(divide="ignore"):
            columns.append(some[np.argmin(np.mean(np.log(some), axis=1))])
    return levels, np.stack(columns, axis=1)


def at_equal_optimism(result: Mapping[str, Any], game: str) -> tuple[float, float, int] | None:
    """Smallest and largest ratio Omega / OG at equal effective optimism of at least 1, and at how many levels."""
    sides = [by_effective_optimism(result["tuned"][game, name], name) for name in (OMEGA, OG)]
    (levels, omega), (other_levels, og) = sides
    start = result["start"][game]
    ratios = []
    for i, level in enumerate(levels):
        j = np.flatnonzero(np.isclose(other_levels, level))
        if len(j) and level >= 0.999:
            a, b = omega[:, i], og[:, j[0]]
            if not (diverged(a, start).any() or diverged(b, start).any()):
                ratios.append(float(np.exp(np.mean(np.log(a) - np.log(b)))))
    return (min(ratios), max(ratios), len(ratios)) if ratios else None


def paired_table(result: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Omega against the optimistic gradient, game by game: tuned, and with the authors' settings."""
    text, numbers = [], []
    for game in result["start"]:
        row, plain = {"game": game}, {"game": game}
        runs = {"tuned": [result["compared"].get((game, name)) for name in (OMEGA, OG)]}
        published = {
            label: run
            for name in (OMEGA, OG)
            for label, run in result["published"].get((game, name), {}).items()
        }
        for label in (f"{OG} 1", f"{OG} 10"):
            if "omega 1" in published and label in published:
                runs[f"authors' settings, against {label}"] = [
                    published["omega 1"],
                    published[label],
                ]
        for label, (a, b) in runs.items():
            found = ratio(a["final"], b["final"])
            row[label] = say_ratio(found)
            for part, value in zip(("", " (low)", " (high)"), found or (np.nan,) * 3, strict=True):
                plain[label + part] = value
        equal = at_equal_optimism(result, game)
        row["at equal effective optimism"] = (
            "–" if equal is None else f"{equal[0]:.3g} to {equal[1]:.3g}"
        )
        plain |= dict(zip(("equal (low)", "equal (high)"), equal or (np.nan,) * 2, strict=False))
        text.append(row)
        numbers.append(plain)
    return pd.DataFrame(text), pd.DataFrame(numbers)


# --- words -------------------------------------------------------------------------------------------------------


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def answer(result: Mapping[str, Any], numbers: pd.DataFrame) -> tuple[str, list[str]]:
    """Whether Omega's gain is more than a larger effective optimism: a verdict, and the sentences behind it."""
    nearer, farther, level, unknown = [], [], [], []
    for row in numbers.to_dict("records"):
        low, high = row["tuned (low)"], row["tuned (high)"]
        group = unknown if np.isnan(low) else nearer if high < 1 else farther if low > 1 else level
        group.append(row["game"])
    known = len(nearer) + len(farther) + len(level)
    sentences = []
    label = f"authors' settings, against {OG} 1"
    if label in numbers and numbers[label].notna().any():
        row = numbers.loc[numbers[label].idxmin()]
        text = (
            f"With the authors' settings Omega ends at up to 1/{1 / row[label]:.3g} of the distance of the optimistic "
            f"gradient with optimism 1 ({row['game']})"
        )
        ten = f"authors' settings, against {OG} 10"
        if ten in numbers and not np.isnan(row[ten]):
            text += (
                f"; against optimism 10, which is Omega's effective optimism, the ratio there is {row[ten]:.3g} "
                f"[{row[ten + ' (low)']:.3g}, {row[ten + ' (high)']:.3g}]"
            )
        sentences.append(text + ".")
    for names, words in ((nearer, "nearer to"), (farther, "farther from")):
        if names:
            some = numbers.set_index("game").loc[names, "tuned"]
            sentences.append(
                f"With both tuned on the same grid, Omega ends {words} the solution than the optimistic gradient on "
                f"{listed(names)} (ratio of distances {some.min():.4g} to {some.max():.4g}, intervals without 1)."
            )
    if level:
        sentences.append(f"No difference is visible on {listed(level)}.")
    if unknown:
        sentences.append(f"There is no interval for {listed(unknown)}.")
    levels = []
    for game in [*nearer, *farther, *level]:
        pair = [
            f"{effective(result['tuned'][game, name]['chosen'], name):g}" for name in (OMEGA, OG)
        ]
        levels.append(f"{' and '.join(pair)} on {game}")
    if levels:
        sentences.append(
            "The effective optimism that tuning chose, for Omega and the optimistic gradient: "
            + "; ".join(levels) + "."
        )  # fmt: skip
    equal = {game: at_equal_optimism(result, game) for game in [*nearer, *farther, *level]}
    spans = [f"{e[0]:.3g} to {e[1]:.3g} on {game}" for game, e in equal.items() if e]
    if spans:
        sentences.append(
            "At equal effective optimism of 1 and more, each with its best learning rate, the ratio of distances goes "
            "from " + "; ".join(spans) + "."
        )  # fmt: skip
    if not known:
        return "cannot tell", ["Too few seeds that ended at a finite distance.", *sentences]
    if not nearer:
        verdict = "No"
        words = "Omega's gain is not more than a larger effective optimism"
    elif len(nearer) == known:
        verdict, words = "Yes", "Omega's gain is more than a larger effective optimism"
    else:
        verdict = "In part"
        words = f"Omega's gain is more than a larger effective optimism on {len(nearer)} of {known} games"
    return verdict, [f"{verdict}: {words}.", *sentences]


# --- figures -----------------------------------------------------------------------------------------------------


def draw(settings: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, tuple[Any, str, str]]:
    """Name -> figure, caption, and what it says in words."""
    methods, start = list(settings["optimizers"]), result["start"]
    first = next(iter(start))
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
            figures.distance_over_calls(curves, start=start, methods=methods),
            f"Distance to the solution over oracle calls, every method tuned: median and quartiles of "
            f"{settings['seeds']} fresh seeds. The thin line is the typical start.",
            "Nearest at the end: " + "; ".join(f"{name} on {game}" for game, name in ends.items()),
        )
    }
    if {OG, OMEGA} <= set(methods):
        panels = {
            game: {
                name: by_effective_optimism(result["tuned"][game, name], name)
                for name in (OG, OMEGA)
            }
            for game in start
        }
        equal = {game: at_equal_optimism(result, game) for game in start}
        drawn["effective_optimism"] = (
            figures.effect(panels, xlabel="effective optimism, o / (1 − b)", start=start),
            "The same effective optimism, each point with its best learning rate: median and quartiles of "
            f"{settings['tuning_seeds']} tuning seeds. Where the lines lie on each other, the average of gradients "
            "adds nothing to the optimism that it stands for.",
            "Ratio of Omega's distance to the optimistic gradient's at equal effective optimism: "
            + "; ".join(f"{g} {e[0]:.3g} to {e[1]:.3g}" for g, e in equal.items() if e),
        )
    if "paths" in result:
        drawn["paths"] = (
            figures.paths(
                {name: np.asarray(path, float) for name, path in result["paths"].items()},
                methods=methods,
            ),
            f"The first steps of one seed on {first}, tuned, in the plane of the largest singular value of the mean "
            "coupling. The dot is the start, the cross the solution.",
            f"Paths of {listed(methods)} on {first}",
        )
    if "stability" in result:
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
            f"Which settings converge on {first}: colours are measured, the line is where the spectral "
            "radius on the mean game is 1. Inside of the line a setting may still be too slow for the budget, or be "
            "driven away by noise.",
            f"Measurement and theory agree for {listed(words)}",
        )  # fmt: skip
    if "decay" in result:
        panels = {
            game: {
                label: (np.asarray(study["decays"]), np.asarray(values, float))
                for label, values in study.items()
                if label != "decays"
            }
            for game, study in result["decay"].items()
        }
        drawn["decay"] = (
            figures.effect(panels, xlabel="decay b", log_x=False, start=start),
            "Omega at different decays (0 is the optimistic gradient): median and quartiles of the tuning seeds. "
            "With the optimism fixed at 1, a larger decay is a larger effective optimism; where it is tuned, it is "
            "not.",
            "Best decay: "
            + "; ".join(
                f"{panel[label][0][np.argmin(np.median(panel[label][1], axis=0))]:g} on {game} ({label})"
                for game, panel in panels.items()
                for label in panel
            ),
        )
    if "batch" in result and len(result["batch"]) > 1:
        sizes = np.asarray(result["batch"]["batches"])
        panel = {
            name: (sizes, np.asarray(values, float))
            for name, values in result["batch"].items()
            if name != "batches"
        }
        drawn["batch"] = (
            figures.effect({first: panel}, xlabel="samples per minibatch", start=start),
            "Larger minibatches, every point tuned for its size, with equal oracle calls (so with more samples).",
            "From the smallest to the largest minibatch the distance goes "
            + "; ".join(
                f"from {number(np.median(v[:, 0]))} to {number(np.median(v[:, -1]))} for {name}"
                for name, (_, v) in panel.items()
            ),
        )
    return drawn


# --- the page ----------------------------------------------------------------------------------------------------


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
    summary, verdicts = best_methods(result, tables["tuned"][1]), []
    if "paired" in tables:
        verdict, sentences = answer(result, tables["paired"][1])
        summary = [" ".join(sentences), *summary]
        state = {"Yes": "holds", "No": "violated"}.get(verdict, "open")
        verdicts = [
            report.Verdict(
                state=state,
                text=f"Is Omega's gain more than a larger effective optimism? {verdict}.",
            )
        ]
    note = (
        "Median and quartiles over fresh seeds of the distance over the last tenth of the budget. Diverged: farther "
        "than a typical start. "
    )
    blocks: dict[str, list[Any]] = {"Every method tuned": [
        pictures["distance"],
        report.Table.from_frame(
            tables["tuned"][0], caption="Final distance, every method tuned on seeds of its own.",
            note=note + "A star marks a setting at an end of its grid.",
        ),
    ]}  # fmt: skip
    if "paired" in tables:
        blocks["Omega against the optimistic gradient"] = [
            report.Table.from_frame(
                tables["paired"][0],
                caption="Omega's distance divided by the optimistic gradient's, same seeds.",
                note="Geometric mean with its 95 % interval; below 1 Omega is nearer. At equal effective optimism: the "
                "smallest and the largest ratio, each with the best learning rate, on the tuning seeds.",
            ),
            pictures["effective_optimism"],
        ]
    if "published" in tables:
        blocks["With the settings of Omega's authors"] = [
            report.Table.from_frame(
                tables["published"][0], caption="Final distance with the published settings.",
                note=note + "On quadratic_linear x descends plainly, and y follows the method at half the rate. "
                "optimistic_gradient 10 is the control that the authors do not have.",
            )
        ]  # fmt: skip
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
    return report.Page(
        title="Stochastic games: what Omega's gain is made of",
        subtitle=f"{len(result['start'])} games of dimension {settings['dim']}, {settings['budget']} oracle calls, "
        f"{settings['seeds']} fresh seeds",
        summary=summary,
        verdicts=verdicts,
        sections=[
            report.Section(title=title, blocks=some, folded=title == "How to repeat this")
            for title, some in blocks.items()
        ],
        footer="Written by jaxfair.",
    )


def best_methods(result: Mapping[str, Any], numbers: pd.DataFrame) -> list[str]:
    """A sentence on who is first, and one on grids that were too small."""
    wins = numbers[numbers["rank"] == 1].groupby("method")["game"].apply(list)
    first = [f"{method} on {listed(games)}" for method, games in wins.items()]
    text = ["Smallest median distance, tuned: " + "; ".join(first) + "."]
    at_edge = [f"{name} on {game}" for (game, name), where in edges(result).items() if where]
    if at_edge:
        text.append(
            f"{len(at_edge)} of {len(result['tuned'])} tuned methods chose a setting at an end of the grid, where a "
            "wider one might do better; they have a star in the table."
        )
    return text


def write(folder: pathlib.Path, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Writes all files of the run, and prints the tables."""
    tables = method_tables(result)
    if {OG, OMEGA} <= set(settings["optimizers"]):
        tables["paired"] = paired_table(result)
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
        "tuned": "final distance, tuned", "published": "with the authors' settings",
        "paired": "Omega's distance divided by the optimistic gradient's",
    }  # fmt: skip
    for name, (text, _) in tables.items():
        report.print_table(text, title=titles[name], console=console)
    console.print("\n".join(page.summary), highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)
