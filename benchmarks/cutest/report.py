"""From the rows to the tables, the list of failures and the performance profiles."""

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

import jaxopt_lite as jol

from ..harness import table
from .problems import PROGRAMS, Entry, half
from .rows import TOL, Study, read, source

VALUE_TOL = 1e-4
RELIABLE = 0.7  # a solver below this success rate does not shrink the commonly solved set
PICTURES = pathlib.Path(__file__).parents[1] / "pictures"


class Results:
    """All rows of a study, judged together; arrays are (problems, solvers)."""

    def __init__(self, study: Study, entries: Iterable[Entry], names: Sequence[str]):
        abouts = {entry: read(study.path(entry.name)) or {} for entry in entries}
        self.names = list(names)
        self.left_out = {e.name: a["left_out"] for e, a in abouts.items() if "left_out" in a}
        self.entries = [e for e, a in abouts.items() if a and "left_out" not in a]
        self.rows = [[read(study.path(e.name, n)) for n in names] for e in self.entries]
        self.start = np.array([abouts[e]["start"] for e in self.entries])
        self.scale = np.array([max(1.0, abouts[e]["gradient"]) for e in self.entries])
        self.size = np.array([e.n for e in self.entries])
        self.tuned = np.array([half(e.name) == "tuned" for e in self.entries])

        self.value = self._column("value")
        self.gradient = self._column("gradient")
        self.evaluations = self._column("evaluations")
        self.compile = self._column("compile")
        self.claims = self._column("claims") == 1
        yards = self._column("yard")
        self.yard = np.nanmedian(yards) if np.isfinite(yards).any() else np.nan
        self.seconds = self._column("seconds") / yards * self.yard

        self.best = np.array([_best(study, entry) for entry in self.entries])
        published = [np.nan if e.published is None else e.published for e in self.entries]
        with np.errstate(invalid="ignore"):
            self.flat = self.gradient <= TOL * self.scale[:, None]
            self.near = self._gap(self.best) <= VALUE_TOL
            self.near |= np.abs(self._gap(np.array(published, float))) <= VALUE_TOL
            self.success = self.flat & self.near
            self.asked = self.gradient <= 1.001 * TOL  # rounding differs from program to program
            self.strict = self.success & self.asked

    def _column(self, key: str) -> np.ndarray:
        """One number of every row; NaN where there is no row, or none in it."""
        shape = (len(self.rows), len(self.names))
        cells = [(row or {}).get(key, np.nan) for line in self.rows for row in line]
        return np.array(cells, float).reshape(shape)

    def _gap(self, reference: np.ndarray) -> np.ndarray:
        return (self.value - reference[:, None]) / np.maximum(1, np.abs(reference))[:, None]

    def stale(self) -> int:
        """How many rows of ours another state of the package made."""
        ours = [row for line in self.rows for row in line if row and row["solver"][:4] == "ours"]
        return sum(row["source"] != source() for row in ours)


def _best(study: Study, entry: Entry) -> float:
    """The smallest value in any row of the problem, asked for here or not; of programs a KKT's."""
    rows = [read(path) for path in study.path(entry.name).parent.glob("*.json")]
    most = TOL if study.family in PROGRAMS else np.inf
    values = [
        row["value"]
        for row in rows
        if row and np.isfinite(row.get("value", np.nan)) and row["gradient"] <= most
    ]
    return min(values, default=np.nan)


def summary(results: Results, keep: np.ndarray, title: str) -> str:
    """The table over the problems of the mask `keep`."""
    success = results.success[keep]
    reliable = success.mean(axis=0) >= RELIABLE
    everyone = results.success[:, reliable] if reliable.any() else results.success
    common = keep & everyone.all(axis=1)
    tuned, held_out = keep & results.tuned, keep & ~results.tuned
    rows = []
    for j, name in enumerate(results.names):
        fine, claims, flat = success[:, j], results.claims[keep, j], results.flat[keep, j]
        shared = common if reliable[j] else common & results.success[:, j]
        counted = results.evaluations[shared, j]
        compiled = results.compile[keep, j]
        rows.append(
            [name, f"{fine.mean():.1%}",
             f"{results.success[tuned, j].sum()} / {results.success[held_out, j].sum()}",
             f"{flat.sum()}", f"{results.strict[keep, j].sum()}",
             f"{(claims & ~flat).sum()}", f"{(claims & ~results.asked[keep, j]).sum()}",
             f"{(claims & flat & ~fine).sum()}",
             f"{(~claims & fine).sum()}",
             np.nanmedian(results.seconds[shared, j]) * 1e3 if shared.any() else None,
             np.median(counted[counted >= 0]) if (counted >= 0).any() else None,
             np.nanmedian(compiled) if np.isfinite(compiled).any() else None]
        )  # fmt: skip
    header = [
        "solver", "success", f"tuned ({tuned.sum()}) / held out ({held_out.sum()})",
        "gradient test", "success (absolute)", "false claims", "false claims (absolute)",
        "claims elsewhere",
        "success, not claimed", "median ms", "median evaluations", "compile CPU-s",
    ]  # fmt: skip
    title += f": {keep.sum()} problems; times over the {common.sum()} that every solver with at "
    return table(header, rows, title + f"least {RELIABLE:.0%} solves")


def failures(results: Results, only: str) -> str:
    """Line by line, what the solver `only` does not get, and how it says so."""
    j = results.names.index(only)
    lines = []
    for part, own in (("tuned", results.tuned), ("held out", ~results.tuned)):
        missed = np.flatnonzero(own & ~results.success[:, j])
        lines.append(f"\n== {only}, {part}: {own.sum() - len(missed)} of {own.sum()}")
        for i in missed:
            entry, row = results.entries[i], results.rows[i][j]
            line = f"{entry.name:12} n={entry.n:<4} "
            if row is None or "failure" in row:
                lines.append(line + (row["failure"] if row else "not run"))
                continue
            status = jol.Status(row["status"]).name if row["status"] >= 0 else "-"
            why = "gradient" * (not results.flat[i, j]) + " value" * (not results.near[i, j])
            lines.append(
                f"{line}{status:10} claims={row['claims']!s:5} evals={row['evaluations']:<6} "
                f"{why:15} |g|={row['gradient']:.1e} |g0|={results.scale[i]:.1e} "
                f"f={row['value']:.9g} best={results.best[i]:.9g} published={entry.published} "
                f"f0={results.start[i]:.4g}"
            )
    return "\n".join(lines)


def missed(results: Results, keep: np.ndarray, only: str) -> str:
    """The same in a sentence, for README.md."""
    j = results.names.index(only)
    names = []
    for i in np.flatnonzero(keep & ~results.success[:, j]):
        row = results.rows[i][j] or {}
        says = jol.Status(row["status"]).name if row.get("status", -1) > 0 else "no answer"
        found = " at a gradient below the tolerance, elsewhere" * bool(results.flat[i, j])
        names.append(f"{results.entries[i].name} ({says}{found})")
    return f"- {only} misses: {', '.join(names) or 'none'}"


# -- performance profiles -------------------------------------------------------------------------

PICTURED = (  # of ours
    "ours default", "ours LBFGS", "ours TrustRegion cg", "ours BFGS", "ours Newton",
    "ours least_squares default", "ours LevenbergMarquardt", "ours Dogleg",
    "ours InteriorPoint", "ours LBFGSB",
)  # fmt: skip
COLOURS = {
    "ours": "C3", "Optimistix": "C0", "JAXopt": "C2", "optax": "C4", "SciPy": "0.5",
    "IPOPT": "C0", "POUNCE": "C1",
}  # fmt: skip
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)), (0, (3, 3, 1, 3)))


def profile(cost: np.ndarray, success: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each solver, the ratios to the best, sorted, and the share of problems within each.

    Dolan and More (2002): r = t_ps / min_s t_ps, infinite where s fails on p. Problems that no
    solver solves count in the share.
    """
    cost = np.where(success, cost, np.inf)
    least = cost.min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isfinite(cost), cost / least, np.inf)
    curves = []
    for column in ratios.T:
        solved = np.sort(column[np.isfinite(column)])
        curves.append((solved, np.arange(1, len(solved) + 1) / len(column)))
    return curves


def draw(results: Results, keep: np.ndarray, title: str, name: str) -> str:
    """Profiles of time and evaluations into `pictures/`; returns the Markdown that shows them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [j for j, n in enumerate(results.names) if n in PICTURED or not n.startswith("ours")]
    names, rows = [results.names[j] for j in shown], np.ix_(keep, shown)
    counts = np.where(results.evaluations > 0, results.evaluations, np.nan)
    panels = (("time", results.seconds, 2**12), ("evaluations", counts, 2**8))
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), sharey=True, layout="constrained")
    for ax, (what, cost, most) in zip(axes, panels, strict=True):
        known = results.success[rows] & np.isfinite(cost[rows])
        used: dict[str, int] = {}
        for label, (ratio, share) in zip(names, profile(cost[rows], known), strict=True):
            package = label.split()[0]
            line = LINES[used.setdefault(package, 0) % len(LINES)]
            used[package] += 1
            ax.step(
                np.concatenate([[1], ratio, [most]]),
                np.concatenate([[0], share, share[-1:] if len(share) else [0]]),
                where="post", color=COLOURS.get(package, "k"), linestyle=line, label=label,
                linewidth=2 if package == "ours" else 1.2,
            )  # fmt: skip
        ax.set(xscale="log", xlim=(1, most), ylim=(0, 1), xlabel=f"{what} / least {what}")
        ax.set_xscale("log", base=2)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("share of problems solved")
    figure.suptitle(f"{title}: {keep.sum()} problems")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / name, dpi=110)
    plt.close(figure)
    return f"![Performance profiles, {title}](pictures/{name})"
