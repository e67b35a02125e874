"""Systems of equations with known roots, as plain JAX functions `fun(x)` of a vector.

Those of J. J. Moré, B. S. Garbow and K. E. Hillstrom, "Testing unconstrained optimization
software", ACM Transactions on Mathematical Software 7(1), 17-41, 1981, that have as many equations
as unknowns, by their numbers there, with the standard starts. `root` is None where the paper gives
none and there is no closed form: tests then compare with SciPy.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class System:
    """Equations, where to start, and their root."""

    name: str
    fun: Callable[[jax.Array], jax.Array]
    x0: np.ndarray
    root: np.ndarray | None = None
    singular: bool = False  # the Jacobian at the root: |F| <= tol leaves sqrt(tol) in x
    unique: bool = True

    def __str__(self) -> str:
        return self.name


def rosenbrock(x):  # 1
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def powell_badly_scaled(x):  # 3
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def helical_valley(x):  # 7
    angle = jnp.arctan2(x[1], x[0]) / (2 * jnp.pi)
    return jnp.stack([10 * (x[2] - 10 * angle), 10 * (jnp.hypot(x[0], x[1]) - 1), x[2]])


def powell_singular(x):  # 13
    return jnp.stack(
        [
            x[0] + 10 * x[1],
            5**0.5 * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            10**0.5 * (x[0] - x[3]) ** 2,
        ]
    )


def wood_gradient(x):  # the gradient of 14, as in the authors' HYBRJ tests
    t1, t2 = x[1] - x[0] ** 2, x[3] - x[2] ** 2
    return jnp.stack(
        [
            -200 * x[0] * t1 - (1 - x[0]),
            200 * t1 + 20.2 * (x[1] - 1) + 19.8 * (x[3] - 1),
            -180 * x[2] * t2 - (1 - x[2]),
            180 * t2 + 20.2 * (x[3] - 1) + 19.8 * (x[1] - 1),
        ]
    )


def trigonometric(x):  # 26
    n, i = x.size, jnp.arange(1, x.size + 1).astype(x.dtype)
    return n - jnp.sum(jnp.cos(x)) + i * (1 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear(x):  # 27
    return jnp.concatenate([x[:-1] + jnp.sum(x) - (x.size + 1), jnp.prod(x)[None] - 1])


def _points(x):
    return jnp.arange(1, x.size + 1).astype(x.dtype) / (x.size + 1)


def _neighbours(x):
    zero = jnp.zeros(1, x.dtype)
    return jnp.concatenate([zero, x[:-1]]), jnp.concatenate([x[1:], zero])


def discrete_boundary_value(x):  # 28
    left, right = _neighbours(x)
    h = 1 / (x.size + 1)
    return 2 * x - left - right + h * h * (x + _points(x) + 1) ** 3 / 2


def discrete_integral_equation(x):  # 29
    t, h = _points(x), 1 / (x.size + 1)
    cubes = (x + t + 1) ** 3
    below, above = jnp.cumsum(t * cubes), jnp.cumsum((1 - t) * cubes)
    return x + h / 2 * ((1 - t) * below + t * (above[-1] - above))


def broyden_tridiagonal(x):  # 30
    left, right = _neighbours(x)
    return (3 - 2 * x) * x - left - 2 * right + 1


def broyden_banded(x):  # 31
    n = x.size
    rows, columns = jnp.arange(n)[:, None], jnp.arange(n)[None, :]
    band = (columns >= rows - 5) & (columns <= rows + 1) & (columns != rows)
    return x * (2 + 5 * x**2) + 1 - band.astype(x.dtype) @ (x * (1 + x))


def chebyquad(x):  # 35
    shifted, terms = 2 * x - 1, [jnp.ones_like(x), 2 * x - 1]
    for _ in range(2, x.size + 1):
        terms.append(2 * shifted * terms[-1] - terms[-2])
    means = jnp.stack([jnp.mean(term) for term in terms[1:]])
    i = np.arange(1, x.size + 1)
    integrals = np.where(i % 2 == 0, -1.0 / np.maximum(i * i - 1, 1), 0.0)
    return means - jnp.asarray(integrals, x.dtype)


_T = np.arange(1, 11) / 11
SYSTEMS = (
    System(name="rosenbrock", fun=rosenbrock, x0=np.array([-1.2, 1.0]), root=np.ones(2)),
    System(
        name="powell_badly_scaled",
        fun=powell_badly_scaled,
        x0=np.array([0.0, 1.0]),
        root=np.array([1.0981593297e-5, 9.1061467399]),
        unique=False,  # the two may be swapped
    ),
    System(
        name="helical_valley",
        fun=helical_valley,
        x0=np.array([-1.0, 0.0, 0.0]),
        root=np.array([1.0, 0.0, 0.0]),
    ),
    System(
        name="powell_singular",
        fun=powell_singular,
        x0=np.array([3.0, -1.0, 0.0, 1.0]),
        root=np.zeros(4),
        singular=True,
    ),
    System(
        name="wood_gradient",
        fun=wood_gradient,
        x0=np.array([-3.0, -1.0, -3.0, -1.0]),
        root=np.ones(4),
        unique=False,  # a saddle point of Wood's function is a root of its gradient too
    ),
    System(name="trigonometric", fun=trigonometric, x0=np.full(10, 0.1), unique=False),
    System(name="brown_almost_linear", fun=brown_almost_linear, x0=np.full(10, 0.5), unique=False),
    System(name="discrete_boundary_value", fun=discrete_boundary_value, x0=_T * (_T - 1)),
    System(name="discrete_integral_equation", fun=discrete_integral_equation, x0=_T * (_T - 1)),
    System(name="broyden_tridiagonal", fun=broyden_tridiagonal, x0=-np.ones(10)),
    System(name="broyden_banded", fun=broyden_banded, x0=-np.ones(10)),
    System(name="chebyquad7", fun=chebyquad, x0=np.arange(1, 8) / 8, unique=False),
    System(name="chebyquad9", fun=chebyquad, x0=np.arange(1, 10) / 10, unique=False),
)
_BY_NAME = {system.name: system for system in SYSTEMS}


def system(name: str) -> System:
    return _BY_NAME[name]
