"""Unconstrained test problems with known answers, as plain JAX functions.

`CASES` is the table the contract tests are parametrised over, and `by_name` looks one case up.
Every objective is a module-level function `objective(x, *args)` of a flat vector that returns a
scalar in the dtype of `x`, is twice differentiable around its starting point and its minimiser,
and holds no state. Start points, minimisers and data are float64 NumPy arrays; a test casts
them to the dtype it runs in.

The problems marked "mgh" are those of J. J. Moré, B. S. Garbow and K. E. Hillstrom, "Testing
unconstrained optimization software", ACM Transactions on Mathematical Software 7(1), 17-41,
1981. Their objective is the plain sum of squared residuals, with no factor of one half. The
paper prints six digits of each nonzero minimum. The digits given here were recomputed in float64
(SciPy's trust-exact and BFGS with JAX derivatives, polished by Newton steps), and agree with the
printed ones. `minima` lists the values of the local minima that are known, the
least first: those in the paper, with its infima at infinity, and those found beside them.

Tags:

- "mgh": in the paper above;
- "convex": the objective is convex;
- "tiny": at most three variables;
- "illconditioned": the Hessian at the minimiser has a condition number of 1e6 or more, or the
  function is badly scaled on the way there;
- "singular": the Hessian at the minimiser is singular;
- "float32": quasi-Newton in float32 brings the largest gradient entry below 1e-3;
- "first_order": gradient descent with a backtracking line search brings the largest gradient
  entry below 1e-6 within 5,000 iterations in float64;
- "data": the objective is a fit to a real data set passed in `args`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """One problem: an objective, where to start and what is known of its minima.

    `minima` holds the known values at local minima, in increasing order, and is empty where none
    is known. `minimiser` is where the least of them is reached, or None where that point is not
    unique or not known. In Powell badly scaled and the two Osborne problems it is unique up to
    a swap of like terms, and the published order is given.
    """

    name: str
    objective: Callable[..., jax.Array]
    x0: np.ndarray
    args: tuple[Any, ...] = ()
    minima: tuple[float, ...]
    minimiser: np.ndarray | None
    tags: frozenset[str]
    source: str

    @property
    def minimum(self) -> float | None:
        """The least known minimum, or None where none is known."""
        return min(self.minima) if self.minima else None

    def __str__(self) -> str:
        """Return the name, which is what pytest shows."""
        return self.name


def _sum_of_squares(residuals: jax.Array) -> jax.Array:
    """Sum of r_i^2, the objective of every least-squares problem here."""
    return jnp.sum(residuals * residuals)


def _count(x: jax.Array, stop: int, start: int = 1) -> jax.Array:
    """Return start, ..., stop in the dtype of `x`."""
    return jnp.arange(start, stop + 1, dtype=x.dtype)


# Problems from outside the paper.


def rosenbrock(x):
    """Chained Rosenbrock, sum of 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2; MGH 1 when n = 2."""
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def booth(x):
    """Booth, (x_1 + 2 x_2 - 7)^2 + (2 x_1 + x_2 - 5)^2."""
    return (x[0] + 2.0 * x[1] - 7.0) ** 2 + (2.0 * x[0] + x[1] - 5.0) ** 2


def himmelblau(x):
    """Himmelblau, (x_1^2 + x_2 - 11)^2 + (x_1 + x_2^2 - 7)^2."""
    return (x[0] ** 2 + x[1] - 11.0) ** 2 + (x[0] + x[1] ** 2 - 7.0) ** 2


def quadratic(x, matrix, vector):
    """Quadratic, x^T Q x / 2 - b^T x, with Q = `matrix` and b = `vector`."""
    return 0.5 * jnp.dot(x, matrix @ x) - jnp.dot(vector, x)


def logistic_regression(x, features, labels, penalty):
    """Mean of log(1 + exp(-y_i (w^T a_i + c))) + penalty |w|^2 / 2, where x = (w, c)."""
    weights = x[:-1]
    margins = labels * (features @ weights + x[-1])
    return jnp.mean(jax.nn.softplus(-margins)) + 0.5 * penalty * jnp.sum(weights**2)


MLP_HIDDEN = 5


def mlp_regression(x, features, targets, penalty):
    """Mean of (v^T tanh(W a_i + c) + d - y_i)^2 + penalty |x|^2 / 2, where x = (W, c, v, d)."""
    inputs = features.shape[1]
    split = inputs * MLP_HIDDEN
    hidden_weights = x[:split].reshape(inputs, MLP_HIDDEN)
    hidden_bias = x[split : split + MLP_HIDDEN]
    output_weights = x[split + MLP_HIDDEN : split + 2 * MLP_HIDDEN]
    hidden = jnp.tanh(features @ hidden_weights + hidden_bias)
    errors = hidden @ output_weights + x[-1] - targets
    return jnp.mean(errors**2) + 0.5 * penalty * jnp.sum(x**2)


# Problems from the paper, in its order.


def freudenstein_roth(x):
    """MGH 2, Freudenstein and Roth: two cubic residuals in x_2."""
    first = -13.0 + x[0] + ((5.0 - x[1]) * x[1] - 2.0) * x[1]
    second = -29.0 + x[0] + ((x[1] + 1.0) * x[1] - 14.0) * x[1]
    return first**2 + second**2


def powell_badly_scaled(x):
    """MGH 3, Powell badly scaled: 10^4 x_1 x_2 - 1 and exp(-x_1) + exp(-x_2) - 1.0001."""
    first = 1e4 * x[0] * x[1] - 1.0
    second = jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001
    return first**2 + second**2


def brown_badly_scaled(x):
    """MGH 4, Brown badly scaled: x_1 - 10^6, x_2 - 2 10^-6 and x_1 x_2 - 2."""
    return (x[0] - 1e6) ** 2 + (x[1] - 2e-6) ** 2 + (x[0] * x[1] - 2.0) ** 2


def beale(x):
    """MGH 5, Beale: y_i - x_1 (1 - x_2^i) for i = 1, 2, 3."""
    first = 1.5 - x[0] * (1.0 - x[1])
    second = 2.25 - x[0] * (1.0 - x[1] ** 2)
    third = 2.625 - x[0] * (1.0 - x[1] ** 3)
    return first**2 + second**2 + third**2


def jennrich_sampson(x):
    """MGH 6, Jennrich and Sampson: 2 + 2 i - exp(i x_1) - exp(i x_2) for i = 1, ..., 10."""
    index = _count(x, 10)
    return _sum_of_squares(2.0 + 2.0 * index - jnp.exp(index * x[0]) - jnp.exp(index * x[1]))


def helical_valley(x):
    """MGH 7, helical valley: 10 (x_3 - 10 theta), 10 (|(x_1, x_2)| - 1) and x_3.

    theta is the angle of (x_1, x_2) in turns. As in the paper it lies in (-1/4, 3/4], so that
    its jump is across the negative x_2 axis, away from the start and the solution.
    """
    theta = 0.25 + jnp.arctan2(-x[0], x[1]) / (2.0 * np.pi)
    radius = jnp.sqrt(x[0] ** 2 + x[1] ** 2)
    return 100.0 * (x[2] - 10.0 * theta) ** 2 + 100.0 * (radius - 1.0) ** 2 + x[2] ** 2


# fmt: off
BARD_DATA = (
    0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39,
)
# fmt: on


def bard(x):
    """MGH 8, Bard: y_i - (x_1 + u_i / (v_i x_2 + w_i x_3)), u = i, v = 16 - i, w = min(u, v)."""
    rising = _count(x, 15)
    falling = 16.0 - rising
    least = jnp.minimum(rising, falling)
    data = jnp.array(BARD_DATA, dtype=x.dtype)
    return _sum_of_squares(data - (x[0] + rising / (falling * x[1] + least * x[2])))


# fmt: off
GAUSSIAN_DATA = (
    0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989,
    0.3521, 0.2420, 0.1295, 0.0540, 0.0175, 0.0044, 0.0009,
)
# fmt: on


def gaussian(x):
    """MGH 9, Gaussian: x_1 exp(-x_2 (t_i - x_3)^2 / 2) - y_i, t_i = (8 - i) / 2."""
    times = (8.0 - _count(x, 15)) / 2.0
    data = jnp.array(GAUSSIAN_DATA, dtype=x.dtype)
    return _sum_of_squares(x[0] * jnp.exp(-x[1] * (times - x[2]) ** 2 / 2.0) - data)


# fmt: off
MEYER_DATA = (
    34780.0, 28610.0, 23650.0, 19630.0, 16370.0, 13720.0, 11540.0, 9744.0,
    8261.0, 7030.0, 6005.0, 5147.0, 4427.0, 3820.0, 3307.0, 2872.0,
)
# fmt: on


def meyer(x):
    """MGH 10, Meyer: x_1 exp(x_2 / (t_i + x_3)) - y_i, t_i = 45 + 5 i."""
    times = 45.0 + 5.0 * _count(x, 16)
    data = jnp.array(MEYER_DATA, dtype=x.dtype)
    return _sum_of_squares(x[0] * jnp.exp(x[1] / (times + x[2])) - data)


def gulf(x):
    """MGH 11, Gulf research and development: exp(-|y_i - x_2|^x_3 / x_1) - t_i.

    Here t_i = i / 100 and y_i = 25 + (-50 ln t_i)^(2/3). The paper prints "y_i m i x_2" for
    y_i - x_2. There are 99 residuals: with the hundredth the Hessian would be infinite at the
    solution, where y_100 = x_2.
    """
    fractions = np.arange(1, 100) / 100.0
    levels = jnp.array(25.0 + (-50.0 * np.log(fractions)) ** (2.0 / 3.0), dtype=x.dtype)
    fitted = jnp.exp(-(jnp.abs(levels - x[1]) ** x[2]) / x[0])
    return _sum_of_squares(fitted - jnp.array(fractions, dtype=x.dtype))


def box(x):
    """MGH 12, Box: exp(-t_i x_1) - exp(-t_i x_2) - x_3 (exp(-t_i) - exp(-10 t_i)), t_i = i / 10."""
    times = 0.1 * _count(x, 10)
    fixed = jnp.exp(-times) - jnp.exp(-10.0 * times)
    return _sum_of_squares(jnp.exp(-times * x[0]) - jnp.exp(-times * x[1]) - x[2] * fixed)


def powell_singular(x):
    """MGH 13 when n = 4 and MGH 22 beyond: Powell singular, summed over blocks of four."""
    blocks = x.reshape(-1, 4)
    first = blocks[:, 0] + 10.0 * blocks[:, 1]
    second = blocks[:, 2] - blocks[:, 3]
    third = blocks[:, 1] - 2.0 * blocks[:, 2]
    fourth = blocks[:, 0] - blocks[:, 3]
    return jnp.sum(first**2 + 5.0 * second**2 + third**4 + 10.0 * fourth**4)


def wood(x):
    """MGH 14, Wood: two Rosenbrock valleys (100 and 90) coupled through x_2 and x_4."""
    valleys = 100.0 * (x[1] - x[0] ** 2) ** 2 + 90.0 * (x[3] - x[2] ** 2) ** 2
    slopes = (1.0 - x[0]) ** 2 + (1.0 - x[2]) ** 2
    coupling = 10.0 * (x[1] + x[3] - 2.0) ** 2 + 0.1 * (x[1] - x[3]) ** 2
    return valleys + slopes + coupling


# fmt: off
KOWALIK_OSBORNE_DATA = (
    0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246,
)
KOWALIK_OSBORNE_INPUT = (
    4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625,
)
# fmt: on


def kowalik_osborne(x):
    """MGH 15, Kowalik and Osborne: y_i - x_1 (u_i^2 + u_i x_2) / (u_i^2 + u_i x_3 + x_4)."""
    data = jnp.array(KOWALIK_OSBORNE_DATA, dtype=x.dtype)
    inputs = jnp.array(KOWALIK_OSBORNE_INPUT, dtype=x.dtype)
    numerator = x[0] * (inputs**2 + inputs * x[1])
    return _sum_of_squares(data - numerator / (inputs**2 + inputs * x[2] + x[3]))


def brown_dennis(x):
    """MGH 16, Brown and Dennis: (x_1 + t x_2 - e^t)^2 + (x_3 + x_4 sin t - cos t)^2, t = i / 5."""
    times = _count(x, 20) / 5.0
    first = x[0] + times * x[1] - jnp.exp(times)
    second = x[2] + x[3] * jnp.sin(times) - jnp.cos(times)
    return _sum_of_squares(first**2 + second**2)


# fmt: off
OSBORNE_ONE_DATA = (
    0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751,
    0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490,
    0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406,
)
# fmt: on


def osborne_one(x):
    """MGH 17, Osborne 1: y_i - (x_1 + x_2 exp(-t_i x_4) + x_3 exp(-t_i x_5)), t_i = 10 (i - 1)."""
    times = 10.0 * _count(x, 32, start=0)
    data = jnp.array(OSBORNE_ONE_DATA, dtype=x.dtype)
    fitted = x[0] + x[1] * jnp.exp(-times * x[3]) + x[2] * jnp.exp(-times * x[4])
    return _sum_of_squares(data - fitted)


def biggs_exp6(x):
    """MGH 18, Biggs EXP6: x_3 e^(-t x_1) - x_4 e^(-t x_2) + x_6 e^(-t x_5) - y_i, t = i / 10."""
    times = 0.1 * _count(x, 13)
    data = jnp.exp(-times) - 5.0 * jnp.exp(-10.0 * times) + 3.0 * jnp.exp(-4.0 * times)
    pair = x[2] * jnp.exp(-times * x[0]) - x[3] * jnp.exp(-times * x[1])
    return _sum_of_squares(pair + x[5] * jnp.exp(-times * x[4]) - data)


# fmt: off
OSBORNE_TWO_DATA = (
    1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608,
    0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661,
    0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428,
    0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559,
    0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054,
)
# fmt: on


def osborne_two(x):
    """MGH 19, Osborne 2: y_i less an exponential and three Gaussian peaks, t_i = (i - 1) / 10."""
    times = 0.1 * _count(x, 64, start=0)
    data = jnp.array(OSBORNE_TWO_DATA, dtype=x.dtype)
    peaks = jnp.exp(-((times[:, None] - x[8:11]) ** 2) * x[5:8]) @ x[1:4]
    return _sum_of_squares(data - x[0] * jnp.exp(-times * x[4]) - peaks)


def watson(x):
    """MGH 20, Watson: p'(t_i) - p(t_i)^2 - 1 at t_i = i / 29, then x_1 and x_2 - x_1^2 - 1.

    p(t) is the polynomial sum x_j t^(j-1).
    """
    times = np.arange(1, 30) / 29.0
    orders = np.arange(x.shape[0])
    powers = times[:, None] ** orders
    slopes = orders * times[:, None] ** np.maximum(orders - 1, 0)
    curve = jnp.array(powers, dtype=x.dtype) @ x
    residuals = jnp.array(slopes, dtype=x.dtype) @ x - curve**2 - 1.0
    return _sum_of_squares(residuals) + x[0] ** 2 + (x[1] - x[0] ** 2 - 1.0) ** 2


def extended_rosenbrock(x):
    """MGH 21, extended Rosenbrock: 10 (x_{2i} - x_{2i-1}^2) and 1 - x_{2i-1}, in separate pairs."""
    odd, even = x[0::2], x[1::2]
    return jnp.sum(100.0 * (even - odd**2) ** 2 + (1.0 - odd) ** 2)


def penalty_one(x):
    """MGH 23, penalty I: 10^-5 sum (x_i - 1)^2 + (sum x_i^2 - 1/4)^2."""
    return 1e-5 * jnp.sum((x - 1.0) ** 2) + (jnp.sum(x**2) - 0.25) ** 2


def variably_dimensioned(x):
    """MGH 25, variably dimensioned: sum (x_i - 1)^2 + s^2 + s^4, s = sum i (x_i - 1)."""
    weighted = jnp.sum(_count(x, x.shape[0]) * (x - 1.0))
    return jnp.sum((x - 1.0) ** 2) + weighted**2 + weighted**4


def trigonometric(x):
    """MGH 26, trigonometric: n - sum cos x_j + i (1 - cos x_i) - sin x_i."""
    cosines = jnp.cos(x)
    index = _count(x, x.shape[0])
    return _sum_of_squares(jnp.sum(1.0 - cosines) + index * (1.0 - cosines) - jnp.sin(x))


def brown_almost_linear(x):
    """MGH 27, Brown almost-linear: x_i + sum x_j - (n + 1) for i < n, and prod x_j - 1."""
    linear = x[:-1] + jnp.sum(x) - (x.shape[0] + 1.0)
    return _sum_of_squares(linear) + (jnp.prod(x) - 1.0) ** 2


def discrete_boundary_value(x):
    """MGH 28, discrete boundary value: 2 x_i - x_{i-1} - x_{i+1} + h^2 (x_i + t_i + 1)^3 / 2."""
    step = 1.0 / (x.shape[0] + 1)
    times = step * _count(x, x.shape[0])
    padded = jnp.pad(x, 1)
    curvature = 2.0 * x - padded[:-2] - padded[2:]
    return _sum_of_squares(curvature + step**2 * (x + times + 1.0) ** 3 / 2.0)


def discrete_integral_equation(x):
    """MGH 29, discrete integral equation: x_i + h sum_j k(t_i, t_j) (x_j + t_j + 1)^3 / 2.

    The kernel k(s, t) is min(s, t) (1 - max(s, t)).
    """
    step = 1.0 / (x.shape[0] + 1)
    times = step * _count(x, x.shape[0])
    kernel = jnp.minimum(times[:, None], times) * (1.0 - jnp.maximum(times[:, None], times))
    return _sum_of_squares(x + 0.5 * step * (kernel @ (x + times + 1.0) ** 3))


def broyden_tridiagonal(x):
    """MGH 30, Broyden tridiagonal: (3 - 2 x_i) x_i - x_{i-1} - 2 x_{i+1} + 1."""
    padded = jnp.pad(x, 1)
    return _sum_of_squares((3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + 1.0)


def broyden_banded(x):
    """MGH 31, Broyden banded: x_i (2 + 5 x_i^2) + 1 - sum x_j (1 + x_j).

    The sum is over i - 5 <= j <= i + 1 without j = i.
    """
    rows, columns = np.indices((x.shape[0], x.shape[0]))
    band = (columns >= rows - 5) & (columns <= rows + 1) & (columns != rows)
    neighbours = jnp.array(band, dtype=x.dtype) @ (x * (1.0 + x))
    return _sum_of_squares(x * (2.0 + 5.0 * x**2) + 1.0 - neighbours)


LINEAR_FULL_RANK_RESIDUALS = 15


def linear_full_rank(x):
    """MGH 32, linear full rank: x_i - c for i <= n and -c beyond, c = (2 / m) sum x_j + 1."""
    shift = 2.0 * jnp.sum(x) / LINEAR_FULL_RANK_RESIDUALS + 1.0
    return _sum_of_squares(x - shift) + (LINEAR_FULL_RANK_RESIDUALS - x.shape[0]) * shift**2


def chebyquad(x):
    """MGH 35, Chebyquad: mean of T_i(x_j) less the integral of T_i, shifted Chebyshev on [0, 1]."""
    orders = np.arange(1, x.shape[0] + 1)
    integrals = np.where(orders % 2 == 0, -1.0 / np.maximum(orders**2 - 1, 1), 0.0)
    shifted = 2.0 * x - 1.0

    def next_order(carry, _):
        previous, current = carry
        return (current, 2.0 * shifted * current - previous), jnp.mean(current)

    initial = (jnp.ones_like(x), shifted)
    _, means = jax.lax.scan(next_order, initial, None, length=x.shape[0])
    return _sum_of_squares(means - jnp.array(integrals, dtype=x.dtype))


# Solutions that have no closed form, to about the last digit of float64.

# fmt: off
OSBORNE_ONE_SOLUTION = (
    0.37541005210695194, 1.935846912712354, -1.46468713661341, 0.012867534640057262,
    0.02212269966167267,
)
OSBORNE_TWO_SOLUTION = (
    1.3099771546273007, 0.431553794602989, 0.6336616989607241, 0.5994305347859162,
    0.7541832263280114, 0.9042885798596336, 1.3658118352370279, 4.823698817227157,
    2.3986848661317546, 4.568874597667672, 5.6753414705806415,
)
WATSON_SOLUTION = (
    -0.015725086401458255, 1.0124348693691099, -0.2329916259567361, 1.260430087799603,
    -1.5137289227222728, 0.9929964324311319,
)
BROYDEN_TRIDIAGONAL_SOLUTION = (
    -0.5707221320112247, -0.681806949984275, -0.7022100760176601, -0.7055106298950804,
    -0.7049061557287437, -0.7014966070298512, -0.6918893223547983, -0.6657965144058536,
    -0.5960351090263656, -0.4164122575286933,
)
BROYDEN_BANDED_SOLUTION = (
    -0.4283028635872503, -0.47659642435629024, -0.5196524636468617, -0.5580993248321809,
    -0.5925061568294574, -0.624503682199468, -0.6232394714405911, -0.6213938417965735,
    -0.6204535966590873, -0.5864692707204351,
)
LOGISTIC_SOLUTION = (
    -0.41605417304325765, -0.4549787227601756, -0.40394362062040096, -0.41409209949571946,
    -0.15990628553483044, 0.09518598735138796, -0.4701364552690072, -0.5459909101262119,
    -0.04435429618041271, 0.29211719292251376, -0.6454818042336157, 0.07737955726644254,
    -0.4493620645858996, -0.4931156130856762, -0.09368810233011327, 0.38406743659843123,
    0.04256429589311646, -0.1691796272497789, 0.18668660285008112, 0.3376316813645527,
    -0.6297804233086862, -0.7214503179671221, -0.5652203808414165, -0.5756971369534595,
    -0.5075708606551874, -0.11372642307088243, -0.512028763274613, -0.6109079303525483,
    -0.5317691065675632, -0.18914817742379794, 0.4952696910901716,
)
# The discretised boundary value problem and integral equation have the same solution.
DISCRETE_SOLUTION = (
    -0.04316498251876487, -0.08157715653538687, -0.11448571438052929, -0.14097357686259668,
    -0.1599086961819831, -0.16987720231277492, -0.16908998378120835, -0.15524953522183182,
    -0.125355891678935, -0.07541653368589209,
)
# fmt: on


# Data and starting points.


@functools.lru_cache(maxsize=1)
def _data_sets() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return standardised (features, targets) of breast-cancer and of the diabetes slice."""
    from sklearn.datasets import load_breast_cancer, load_diabetes

    def standardise(values):
        return (values - values.mean(axis=0)) / values.std(axis=0)

    features, classes = load_breast_cancer(return_X_y=True)
    cancer = standardise(features), 2.0 * classes - 1.0
    features, targets = load_diabetes(return_X_y=True)
    return cancer, (standardise(features)[:60], standardise(targets)[:60])


def _quadratic_arguments() -> tuple[np.ndarray, np.ndarray]:
    """Return (Q, b): eigenvalues 1e-3 to 1e3 in a random rotation, and the solution at ones."""
    size = 20
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))
    matrix = (rotation * np.logspace(-3.0, 3.0, size)) @ rotation.T
    matrix = 0.5 * (matrix + matrix.T)
    return matrix, matrix.sum(axis=1)


def _grid(size: int) -> np.ndarray:
    """Return i / (n + 1) for i = 1, ..., n."""
    return np.arange(1, size + 1) / (size + 1)


def _case(name, objective, x0, minima, minimiser, tags="", *, number=None, source="", args=()):
    """Build a case, adding the tags that follow from its MGH number and its size."""
    names = set(tags.split())
    if number is not None:
        names.add("mgh")
        source = f"Moré, Garbow and Hillstrom (1981), problem {number}"
    if np.size(x0) <= 3:
        names.add("tiny")
    start = np.array(x0, dtype=np.float64)
    start.setflags(write=False)
    if minimiser is not None:
        minimiser = np.array(minimiser, dtype=np.float64)
        minimiser.setflags(write=False)
    return Case(
        name=name,
        objective=objective,
        x0=start,
        args=tuple(args),
        minima=tuple(minima),
        minimiser=minimiser,
        tags=frozenset(names),
        source=source,
    )


def _cases() -> tuple[Case, ...]:
    """Build the table."""
    cancer, diabetes = _data_sets()
    matrix, vector = _quadratic_arguments()
    grid = _grid(10)
    boundary_start = grid * (grid - 1.0)
    mlp_size = (diabetes[0].shape[1] + 2) * MLP_HIDDEN + 1
    return (
        _case("rosenbrock", rosenbrock, [-1.2, 1.0], [0.0], np.ones(2), "float32", number=1),
        # The second minimum of the chained function, near (-1, 1, ..., 1), was found by
        # trust-exact started there.
        _case(
            "rosenbrock100",
            rosenbrock,
            np.tile([-1.2, 1.0], 50),
            [0.0, 3.986623854301],
            np.ones(100),
            "float32",
            source="Chained Rosenbrock function, n = 100",
        ),
        _case(
            "rosenbrock20",
            rosenbrock,
            np.full(20, -1.2),
            [0.0, 3.986623854261],
            np.ones(20),
            "float32",
            source="Chained Rosenbrock function, n = 20, from -1.2 throughout",
        ),
        _case("beale", beale, [1.0, 1.0], [0.0], [3.0, 0.5], "float32 first_order", number=5),
        _case(
            "booth",
            booth,
            [0.0, 0.0],
            [0.0],
            [1.0, 3.0],
            "convex float32 first_order",
            source="Booth's function",
        ),
        # The other minimisers are (-2.805, 3.131), (-3.779, -3.283) and (3.584, -1.848).
        _case(
            "himmelblau",
            himmelblau,
            [1.0, 1.0],
            [0.0],
            None,
            "float32 first_order",
            source="Himmelblau (1972)",
        ),
        _case(
            "quadratic",
            quadratic,
            np.zeros(20),
            [float(-0.5 * vector.sum())],
            np.ones(20),
            "convex illconditioned",
            source="Random rotation of eigenvalues log-spaced from 1e-3 to 1e3",
            args=(matrix, vector),
        ),
        # Minimum: Newton from zero in float64 to a gradient below 1e-15; SciPy's trust-exact
        # gives the same thirteen digits.
        _case(
            "logistic",
            logistic_regression,
            np.zeros(31),
            [0.0995913754847055],
            LOGISTIC_SOLUTION,
            "convex data float32 first_order",
            source="scikit-learn breast-cancer data, standardised",
            args=(*cancer, 1e-2),
        ),
        _case(
            "mlp",
            mlp_regression,
            0.3 * np.random.default_rng(0).standard_normal(mlp_size),
            [],
            None,
            "data float32",
            source="First 60 rows of scikit-learn diabetes data, standardised",
            args=(*diabetes, 1e-2),
        ),
        _case(
            "freudenstein_roth",
            freudenstein_roth,
            [0.5, -2.0],
            [0.0, 48.98425367924],
            [5.0, 4.0],
            number=2,
        ),
        _case(
            "powell_badly_scaled",
            powell_badly_scaled,
            [0.0, 1.0],
            [0.0],
            [1.0981593296998175e-05, 9.106146739866524],
            "illconditioned",
            number=3,
        ),
        _case(
            "brown_badly_scaled",
            brown_badly_scaled,
            [1.0, 1.0],
            [0.0],
            [1e6, 2e-6],
            "illconditioned",
            number=4,
        ),
        # Steep: a long step lands where both exponentials vanish, a plateau at 2020.
        _case(
            "jennrich_sampson",
            jennrich_sampson,
            [0.3, 0.4],
            [124.3621823556148],
            [0.25782521367036404, 0.25782521367036404],
            number=6,
        ),
        _case(
            "helical_valley",
            helical_valley,
            [-1.0, 0.0, 0.0],
            [0.0],
            [1.0, 0.0, 0.0],
            "float32 first_order",
            number=7,
        ),
        # The second value is the infimum as x_2 and x_3 go to minus infinity.
        _case(
            "bard",
            bard,
            [1.0, 1.0, 1.0],
            [0.008214877306578976, 17.42869333333334],
            [0.08241055974978892, 1.1330360920297216, 2.343695178642537],
            "float32",
            number=8,
        ),
        _case(
            "gaussian",
            gaussian,
            [0.4, 1.0, 0.0],
            [1.127932769619e-08],
            [0.3989561378387567, 1.0000190844878059, 0.0],
            "float32 first_order",
            number=9,
        ),
        # Minimum and minimiser in extended precision: in float64 rounding moves f by 3e-10.
        _case(
            "meyer",
            meyer,
            [0.02, 4000.0, 250.0],
            [87.9458551709],
            [0.005609636471028015, 6181.346346286378, 345.2236346241367],
            "illconditioned",
            number=10,
        ),
        _case(
            "gulf",
            gulf,
            [5.0, 2.5, 0.15],
            [0.0],
            [50.0, 25.0, 1.5],
            "illconditioned float32",
            number=11,
        ),
        # Zero at (1, 10, 1), at (10, 1, -1) and wherever x_1 = x_2 and x_3 = 0.
        _case("box", box, [0.0, 10.0, 20.0], [0.0], None, "float32", number=12),
        _case(
            "powell_singular",
            powell_singular,
            [3.0, -1.0, 0.0, 1.0],
            [0.0],
            np.zeros(4),
            "singular float32",
            number=13,
        ),
        _case("wood", wood, [-3.0, -1.0, -3.0, -1.0], [0.0], np.ones(4), "float32", number=14),
        # The second value is the infimum with x_1 going to infinity and x_2 near -14.08.
        _case(
            "kowalik_osborne",
            kowalik_osborne,
            [0.25, 0.39, 0.415, 0.39],
            [0.0003075056038492373, 0.001027343048695],
            [0.1928069345790379, 0.19128232873436662, 0.12305650692632066, 0.13606233068379467],
            "float32",
            number=15,
        ),
        _case(
            "brown_dennis",
            brown_dennis,
            [25.0, 5.0, -5.0, -1.0],
            [85822.20162635628],
            [-11.594439904762163, 13.203630051207202, -0.40343948817685954, 0.23677877445573633],
            number=16,
        ),
        _case(
            "osborne_one",
            osborne_one,
            [0.5, 1.5, -1.0, 0.01, 0.02],
            [5.46489469748e-05],
            OSBORNE_ONE_SOLUTION,
            "illconditioned",
            number=17,
        ),
        # Zero at (1, 10, 1, 5, 4, 3) and at the same sum with its terms in another order. The
        # paper's second value is at a saddle, on the subspace x_1 = x_5, x_3 = x_6 that holds
        # the starting point and that exact gradient methods never leave.
        _case(
            "biggs_exp6",
            biggs_exp6,
            [1.0, 2.0, 1.0, 1.0, 1.0, 1.0],
            [0.0, 0.005655649925500],
            None,
            "illconditioned float32",
            number=18,
        ),
        _case(
            "osborne_two",
            osborne_two,
            [1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5],
            [0.04013773629354775],
            OSBORNE_TWO_SOLUTION,
            "float32",
            number=19,
        ),
        _case(
            "watson",
            watson,
            np.zeros(6),
            [0.002287670053552],
            WATSON_SOLUTION,
            "float32",
            number=20,
        ),
        _case(
            "extended_rosenbrock",
            extended_rosenbrock,
            np.tile([-1.2, 1.0], 5),
            [0.0],
            np.ones(10),
            "float32",
            number=21,
        ),
        _case(
            "extended_powell",
            powell_singular,
            np.tile([3.0, -1.0, 0.0, 1.0], 3),
            [0.0],
            np.zeros(12),
            "singular float32",
            number=22,
        ),
        _case(
            "penalty_one_4",
            penalty_one,
            [1.0, 2.0, 3.0, 4.0],
            [2.249977500899937e-05],
            np.full(4, 0.2500074995875379),
            "float32",
            number=23,
        ),
        _case(
            "penalty_one_10",
            penalty_one,
            np.arange(1.0, 11.0),
            [7.087651467090369e-05],
            np.full(10, 0.15812230111311634),
            "float32",
            number=23,
        ),
        _case(
            "variably_dimensioned",
            variably_dimensioned,
            1.0 - np.arange(1.0, 11.0) / 10.0,
            [0.0],
            np.ones(10),
            "convex float32 first_order",
            number=25,
        ),
        # Zero at the origin and near 0.04 throughout. The third value was found by trust-exact
        # from a perturbed start; the paper lists the first two.
        _case(
            "trigonometric",
            trigonometric,
            np.full(10, 0.1),
            [0.0, 2.795056121879e-05, 4.218633887923e-05],
            None,
            "float32 first_order",
            number=26,
        ),
        # Zero at (a, ..., a, a^(1-n)) for a = 1 and a = 0.97943. The paper also lists one, at the
        # flat stationary point (0, ..., 0, n + 1).
        _case(
            "brown_almost_linear",
            brown_almost_linear,
            np.full(10, 0.5),
            [0.0, 1.0],
            None,
            "float32",
            number=27,
        ),
        _case(
            "discrete_boundary_value",
            discrete_boundary_value,
            boundary_start,
            [0.0],
            DISCRETE_SOLUTION,
            "float32",
            number=28,
        ),
        _case(
            "discrete_integral_equation",
            discrete_integral_equation,
            boundary_start,
            [0.0],
            DISCRETE_SOLUTION,
            "float32 first_order",
            number=29,
        ),
        _case(
            "broyden_tridiagonal",
            broyden_tridiagonal,
            np.full(10, -1.0),
            [0.0],
            BROYDEN_TRIDIAGONAL_SOLUTION,
            "float32 first_order",
            number=30,
        ),
        # Gradient descent from the start reaches the second or the third value, which are not in
        # the paper, as its step sizes fall.
        _case(
            "broyden_banded",
            broyden_banded,
            np.full(10, -1.0),
            [0.0, 2.680219920726, 3.057278432426],
            BROYDEN_BANDED_SOLUTION,
            "float32 first_order",
            number=31,
        ),
        _case(
            "linear_full_rank",
            linear_full_rank,
            np.ones(9),
            [6.0],
            np.full(9, -1.0),
            "convex float32 first_order",
            number=32,
        ),
        # The minimisers of Chebyquad are those here with their entries in any order.
        _case("chebyquad7", chebyquad, _grid(7), [0.0], None, "float32 first_order", number=35),
        _case(
            "chebyquad8",
            chebyquad,
            _grid(8),
            [0.003516873725678],
            None,
            "float32 first_order",
            number=35,
        ),
    )


CASES: tuple[Case, ...] = _cases()

_BY_NAME = {case.name: case for case in CASES}


def by_name(name: str) -> Case:
    """Return the case of that name."""
    return _BY_NAME[name]
