"""The NIST StRD non-linear regression sets: data, starts, certified estimates, deviations."""

import dataclasses
import pathlib
import re
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

DATA = pathlib.Path(__file__).parent / "data" / "nist_strd"


@dataclasses.dataclass(frozen=True, eq=False)
class Regression:
    """One set: `model(b, x)` is fitted to `y`; `starts` is (2, n), the rest is certified."""

    name: str
    model: Callable[[Array, Array], Array]
    x: np.ndarray
    y: np.ndarray
    starts: np.ndarray
    estimate: np.ndarray
    deviations: np.ndarray
    sum_of_squares: float

    def __str__(self) -> str:
        return self.name

    def residual(self, b: Array, x: Array, y: Array) -> Array:
        """What is left of the data."""
        return y - self.model(b, x)


def _exponential(b, x):
    return b[0] * (1 - jnp.exp(-b[1] * x))


def _chwirut(b, x):
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def _three_exponentials(b, x):
    return sum(b[i] * jnp.exp(-b[i + 1] * x) for i in (0, 2, 4))


def _two_bells(b, x):
    bells = [b[i] * jnp.exp(-(((x - b[i + 1]) / b[i + 2]) ** 2)) for i in (2, 5)]
    return b[0] * jnp.exp(-b[1] * x) + bells[0] + bells[1]


def _cubic_over_cubic(b, x):
    return (b[0] + x * (b[1] + x * (b[2] + x * b[3]))) / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def _enso(b, x):
    def wave(cosine, sine, period):
        return cosine * jnp.cos(2 * jnp.pi * x / period) + sine * jnp.sin(2 * jnp.pi * x / period)

    return b[0] + wave(b[1], b[2], 12.0) + wave(b[4], b[5], b[3]) + wave(b[7], b[8], b[6])


MODELS: dict[str, Callable[[Array, Array], Array]] = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": _exponential,
    "Chwirut1": _chwirut,
    "Chwirut2": _chwirut,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": _enso,
    "Eckerle4": lambda b, x: b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": _two_bells,
    "Gauss2": _two_bells,
    "Gauss3": _two_bells,
    "Hahn1": _cubic_over_cubic,
    "Kirby2": lambda b, x: (b[0] + x * (b[1] + x * b[2])) / (1 + x * (b[3] + x * b[4])),
    "Lanczos1": _three_exponentials,
    "Lanczos2": _three_exponentials,
    "Lanczos3": _three_exponentials,
    "MGH09": lambda b, x: b[0] * (x * x + x * b[1]) / (x * x + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * jnp.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4]),
    "Misra1a": _exponential,
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2.0),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[:, 0] * jnp.exp(-b[2] * x[:, 1]),
    "Rat42": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / jnp.pi,
    "Thurber": _cubic_over_cubic,
}


def load(name: str) -> Regression:
    """One set by its name."""
    text = (DATA / f"{name}.dat").read_text()
    rows = [[float(v) for v in line.split("=")[1].split()]
            for line in text.splitlines() if re.match(r"\s*b\d+ =", line)]  # fmt: skip
    start1, start2, estimate, deviations = np.array(rows).T
    squares = re.search(r"Residual Sum of Squares:\s*(\S+)", text)
    assert squares is not None
    data = text[text.rindex("Data: ") :].splitlines()[1:]
    table = np.array([[float(v) for v in line.split()] for line in data if line.strip()])
    y, x = table[:, 0], table[:, 1:]
    if name == "Nelson":
        y = np.log(y)
    x = x[:, 0] if x.shape[1] == 1 else x
    starts = np.stack([start1, start2])
    return Regression(
        name, MODELS[name], x, y, starts, estimate, deviations, float(squares.group(1))
    )


SETS = tuple(load(name) for name in MODELS)


def digits(got: np.ndarray, certified: np.ndarray) -> float:
    """The least number of digits in which `got` agrees: -log10 of the largest relative error."""
    error = np.max(np.abs(np.asarray(got) - certified) / np.abs(certified))
    return float(min(11.0, -np.log10(error))) if np.isfinite(error) and error > 0 else (
        11.0 if error == 0 else -np.inf
    )  # fmt: skip
