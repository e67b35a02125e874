"""Problems of Hock & Schittkowski (1981) with their published minima, and multipliers where known.

Those of one shape are one problem with the number of the member among its arguments, so that a
family is one program. Constraints that a member lacks are -1 <= 0, variables are fixed at 0.
Inequalities are written as in the book, g(x) >= 0, and turned around by `ineq`. Multipliers follow
the signs of the package; they are derived by hand or by bounded least squares at the minimum.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

INF = np.inf
R2, R3, R7, PI = np.sqrt(2.0), np.sqrt(3.0), np.sqrt(7.0), np.pi


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Member:
    """One problem; `eq` and `ineq` (>= 0) return lists."""

    number: int
    objective: Callable
    start: tuple
    minimum: float
    eq: Callable = lambda x: []
    ineq: Callable = lambda x: []
    lower: tuple = ()
    upper: tuple = ()
    prices: dict = dataclasses.field(default_factory=dict)
    degenerate: bool = False  # second-order condition or LICQ fails: linear convergence is right

    def __str__(self) -> str:
        return f"HS{self.number}"


def banana(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def product(x):
    return -x[0] * x[1] * x[2]


def hs24(x):
    return ((x[0] - 3) ** 2 - 9) * x[1] ** 3 / (27 * R3)


def powers(x):
    return (x[0] - x[1]) ** 2 + (x[2] - 1) ** 2 + (x[3] - 1) ** 4 + (x[4] - 1) ** 6


def chained(x):
    return (x[1] + x[2] - 2) ** 2 + (x[3] - 1) ** 2 + (x[4] - 1) ** 2


def linear52(x):
    return [x[0] + 3 * x[1], x[2] + x[3] - 2 * x[4], x[1] - x[4]]


def hs100(x):
    return (
        (x[0] - 10) ** 2 + 5 * (x[1] - 12) ** 2 + x[2] ** 4 + 3 * (x[3] - 11) ** 2
        + 10 * x[4] ** 6 + 7 * x[5] ** 2 + x[6] ** 4 - 4 * x[5] * x[6] - 10 * x[5] - 8 * x[6]
    )  # fmt: skip


def hs100_ineq(x):
    return [
        127 - 2 * x[0] ** 2 - 3 * x[1] ** 4 - x[2] - 4 * x[3] ** 2 - 5 * x[4],
        282 - 7 * x[0] - 3 * x[1] - 10 * x[2] ** 2 - x[3] + x[4],
        196 - 23 * x[0] - x[1] ** 2 - 6 * x[5] ** 2 + 8 * x[6],
        -4 * x[0] ** 2 - x[1] ** 2 + 3 * x[0] * x[1] - 2 * x[2] ** 2 - 5 * x[5] + 11 * x[6],
    ]


def hs43_ineq(x):
    s = x * x
    return [
        8 - s[0] - s[1] - s[2] - s[3] - x[0] + x[1] - x[2] + x[3],
        10 - s[0] - 2 * s[1] - s[2] - 2 * s[3] + x[0] + x[3],
        5 - 2 * s[0] - s[1] - s[2] - 2 * x[0] + x[1] + x[3],
    ]


def hs76(x):
    squares = x[0] ** 2 + 0.5 * x[1] ** 2 + x[2] ** 2 + 0.5 * x[3] ** 2
    return squares - x[0] * x[2] + x[2] * x[3] - x[0] - 3 * x[1] + x[2] - x[3]


M = Member
PLANE = (
    M(number=1, objective=banana, start=(-2, 1), minimum=0, lower=(-INF, -1.5)),
    M(number=3, objective=lambda x: x[1] + 1e-5 * (x[1] - x[0]) ** 2, start=(10, 1), minimum=0,
      lower=(-INF, 0), prices={"lower": (0, 1)}),
    M(number=4, objective=lambda x: (x[0] + 1) ** 3 / 3 + x[1], start=(1.125, 0.125),
      minimum=8 / 3, lower=(1, 0), prices={"lower": (4, 1)}),
    M(number=5, start=(0, 0), minimum=-1.9132229549810367, lower=(-1.5, -3), upper=(4, 3),
      objective=lambda x: jnp.sin(x[0] + x[1]) + (x[0] - x[1]) ** 2 - 1.5 * x[0] + 2.5 * x[1] + 1),
    M(number=10, objective=lambda x: x[0] - x[1], start=(-10, 10), minimum=-1,
      ineq=lambda x: [-3 * x[0] ** 2 + 2 * x[0] * x[1] - x[1] ** 2 + 1], prices={"ineq": (0.5,)}),
    M(number=11, objective=lambda x: (x[0] - 5) ** 2 + x[1] ** 2 - 25, start=(4.9, 0.1),
      minimum=-8.49846423, ineq=lambda x: [-(x[0] ** 2) + x[1]], prices={"ineq": (3.0493,)}),
    M(number=12, start=(0, 0), minimum=-30, prices={"ineq": (0.5,)},
      objective=lambda x: 0.5 * x[0] ** 2 + x[1] ** 2 - x[0] * x[1] - 7 * x[0] - 7 * x[1],
      ineq=lambda x: [25 - 4 * x[0] ** 2 - x[1] ** 2]),
    M(number=15, objective=banana, start=(-2, 1), minimum=306.5, upper=(0.5, INF),
      ineq=lambda x: [x[0] * x[1] - 1, x[0] + x[1] ** 2], prices={"ineq": (700, 0)}),
    M(number=17, objective=banana, start=(-2, 1), minimum=1, lower=(-0.5, -INF), upper=(0.5, 1),
      ineq=lambda x: [x[1] ** 2 - x[0], x[0] ** 2 - x[1]], degenerate=True),
    M(number=18, objective=lambda x: 0.01 * x[0] ** 2 + x[1] ** 2, start=(2, 2), minimum=5,
      ineq=lambda x: [x[0] * x[1] - 25, x[0] ** 2 + x[1] ** 2 - 25], lower=(2, 0), upper=(50, 50)),
    M(number=19, objective=lambda x: (x[0] - 10) ** 3 + (x[1] - 20) ** 3, start=(20.1, 5.84),
      minimum=-6961.81388, lower=(13, 0), upper=(100, 100),
      ineq=lambda x: [(x[0] - 5) ** 2 + (x[1] - 5) ** 2 - 100,
                      -((x[1] - 5) ** 2) - (x[0] - 6) ** 2 + 82.81]),
    M(number=21, objective=lambda x: 0.01 * x[0] ** 2 + x[1] ** 2 - 100, start=(-1, -1),
      minimum=-99.96, ineq=lambda x: [10 * x[0] - x[1] - 10], lower=(2, -50), upper=(50, 50),
      prices={"lower": (0.04, 0), "ineq": (0,)}),
    M(number=22, objective=lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2, start=(2, 2), minimum=1,
      ineq=lambda x: [-x[0] - x[1] + 2, -(x[0] ** 2) + x[1]], prices={"ineq": (2 / 3, 2 / 3)}),
    M(number=24, objective=hs24, start=(1, 0.5), minimum=-1, lower=(0, 0),
      ineq=lambda x: [x[0] / R3 - x[1], x[0] + R3 * x[1], -x[0] - R3 * x[1] + 6],
      prices={"ineq": (R3 / 2, 0, 0.5)}),
)  # fmt: skip
SPACE = (
    M(number=29, objective=product, start=(1, 1, 1), minimum=-16 * R2, prices={"ineq": (1 / R2,)},
      ineq=lambda x: [-(x[0] ** 2) - 2 * x[1] ** 2 - 4 * x[2] ** 2 + 48]),
    M(number=30, objective=lambda x: x @ x, start=(1, 1, 1), minimum=1, lower=(1, -10, -10),
      upper=(10, 10, 10), ineq=lambda x: [x[0] ** 2 + x[1] ** 2 - 1], degenerate=True),
    M(number=31, objective=lambda x: 9 * x[0] ** 2 + x[1] ** 2 + 9 * x[2] ** 2, start=(1, 1, 1),
      minimum=6, ineq=lambda x: [x[0] * x[1] - 1], lower=(-10, 1, -10), upper=(10, 10, 1)),
    M(number=33, objective=lambda x: (x[0] - 1) * (x[0] - 2) * (x[0] - 3) + x[2], start=(0, 0, 3),
      minimum=R2 - 6, lower=(0, 0, 0), upper=(INF, INF, 5),
      ineq=lambda x: [x[2] ** 2 - x[1] ** 2 - x[0] ** 2, x @ x - 4],
      prices={"ineq": (1 / 32**0.5, 1 / 32**0.5), "lower": (11, 0, 0)}),
    M(number=34, objective=lambda x: -x[0], start=(0, 1.05, 2.9), minimum=-0.834032445,
      lower=(0, 0, 0), upper=(100, 100, 10),
      ineq=lambda x: [x[1] - jnp.exp(x[0]), x[2] - jnp.exp(x[1])]),
    M(number=35, start=(0.5, 0.5, 0.5), minimum=1 / 9, lower=(0, 0, 0), prices={"ineq": (2 / 9,)},
      objective=lambda x: 9 - 8 * x[0] - 6 * x[1] - 4 * x[2] + 2 * x[0] ** 2 + 2 * x[1] ** 2
      + x[2] ** 2 + 2 * x[0] * x[1] + 2 * x[0] * x[2],
      ineq=lambda x: [3 - x[0] - x[1] - 2 * x[2]]),
    M(number=36, objective=product, start=(10, 10, 10), minimum=-3300, lower=(0, 0, 0),
      upper=(20, 11, 42), ineq=lambda x: [72 - x[0] - 2 * x[1] - 2 * x[2]],
      prices={"ineq": (110,), "upper": (55, 80, 0)}),
    M(number=37, objective=product, start=(10, 10, 10), minimum=-3456, lower=(0, 0, 0),
      upper=(42, 42, 42), prices={"ineq": (144, 0)},
      ineq=lambda x: [72 - x[0] - 2 * x[1] - 2 * x[2], x[0] + 2 * x[1] + 2 * x[2]]),
    M(number=65, start=(-5, 5, 0), minimum=0.953528856757, lower=(-4.5, -4.5, -5),
      upper=(4.5, 4.5, 5), ineq=lambda x: [48 - x @ x],
      objective=lambda x: (x[0] - x[1]) ** 2 + (x[0] + x[1] - 10) ** 2 / 9 + (x[2] - 5) ** 2),
    M(number=66, objective=lambda x: 0.2 * x[2] - 0.8 * x[0], start=(0, 1.05, 2.9),
      minimum=0.5181632741, lower=(0, 0, 0), upper=(100, 100, 10),
      ineq=lambda x: [x[1] - jnp.exp(x[0]), x[2] - jnp.exp(x[1])]),
)  # fmt: skip
CURVE = (
    M(number=6, objective=lambda x: (1 - x[0]) ** 2, start=(-1.2, 1), minimum=0,
      eq=lambda x: [10 * (x[1] - x[0] ** 2)]),
    M(number=7, objective=lambda x: jnp.log(1 + x[0] ** 2) - x[1], start=(2, 2), minimum=-R3,
      eq=lambda x: [(1 + x[0] ** 2) ** 2 + x[1] ** 2 - 4], prices={"eq": (1 / (2 * R3),)}),
    M(number=9, objective=lambda x: jnp.sin(PI * x[0] / 12) * jnp.cos(PI * x[1] / 16),
      start=(0, 0), minimum=-0.5, eq=lambda x: [4 * x[0] - 3 * x[1]]),
    M(number=26, objective=lambda x: (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 4, start=(-2.6, 2, 2),
      minimum=0, eq=lambda x: [(1 + x[1] ** 2) * x[0] + x[2] ** 4 - 3], degenerate=True),
    M(number=27, objective=lambda x: 0.01 * (x[0] - 1) ** 2 + (x[1] - x[0] ** 2) ** 2,
      start=(2, 2, 2), minimum=0.04, eq=lambda x: [x[0] + x[2] ** 2 + 1], prices={"eq": (0.04,)},
      degenerate=True),
    M(number=28, objective=lambda x: (x[0] + x[1]) ** 2 + (x[1] + x[2]) ** 2, start=(-4, 1, 1),
      minimum=0, eq=lambda x: [x[0] + 2 * x[1] + 3 * x[2] - 1], prices={"eq": (0,)}),
    M(number=60, start=(2, 2, 2), minimum=0.03256820025, lower=(-10,) * 3, upper=(10,) * 3,
      objective=lambda x: (x[0] - 1) ** 2 + (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 4,
      eq=lambda x: [x[0] * (1 + x[1] ** 2) + x[2] ** 4 - 4 - 3 * R2]),
)  # fmt: skip
TWO_EQUATIONS = (
    M(number=39, objective=lambda x: -x[0], start=(2, 2, 2, 2), minimum=-1,
      eq=lambda x: [x[1] - x[0] ** 3 - x[2] ** 2, x[0] ** 2 - x[1] - x[3] ** 2],
      prices={"eq": (-1, -1)}),
    M(number=42, start=(1, 1, 1, 1), minimum=28 - 10 * R2,
      objective=lambda x: sum((x[i] - i - 1) ** 2 for i in range(4)),
      eq=lambda x: [x[0] - 2, x[2] ** 2 + x[3] ** 2 - 2], prices={"eq": (-2, 5 / R2 - 1)}),
    M(number=46, objective=powers, start=(R2 / 2, 1.75, 0.5, 2, 2), minimum=0, degenerate=True,
      eq=lambda x: [x[0] ** 2 * x[3] + jnp.sin(x[3] - x[4]) - 1, x[1] + x[2] ** 4 * x[3] ** 2 - 2]),
    M(number=48, start=(3, 5, -3, 2, -2), minimum=0, prices={"eq": (0, 0)},
      objective=lambda x: (x[0] - 1) ** 2 + (x[1] - x[2]) ** 2 + (x[3] - x[4]) ** 2,
      eq=lambda x: [jnp.sum(x) - 5, x[2] - 2 * (x[3] + x[4]) + 3]),
    M(number=49, objective=powers, start=(10, 7, 2, -3, 0.8), minimum=0, degenerate=True,
      eq=lambda x: [x[0] + x[1] + x[2] + 4 * x[3] - 7, x[2] + 5 * x[4] - 6]),
    M(number=63, start=(2, 2, 2), minimum=961.715172, lower=(0, 0, 0),
      objective=lambda x: 1000 - x[0] ** 2 - 2 * x[1] ** 2 - x[2] ** 2 - x[0] * (x[1] + x[2]),
      eq=lambda x: [8 * x[0] + 14 * x[1] + 7 * x[2] - 56, x @ x - 25]),
    M(number=77, objective=lambda x: (x[0] - 1) ** 2 + powers(x), start=(2,) * 5,
      minimum=0.24150513, eq=lambda x: [x[0] ** 2 * x[3] + jnp.sin(x[3] - x[4]) - 2 * R2,
                                      x[1] + x[2] ** 4 * x[3] ** 2 - 8 - R2]),
)  # fmt: skip
THREE_EQUATIONS = (
    M(number=40, objective=lambda x: -x[0] * x[1] * x[2] * x[3], start=(0.8,) * 4, minimum=-0.25,
      eq=lambda x: [x[0] ** 3 + x[1] ** 2 - 1, x[0] ** 2 * x[3] - x[2], x[3] ** 2 - x[1]],
      prices={"eq": (0.5, -0.4719372, 0.3535534)}),
    M(number=50, start=(35, -31, 11, 5, -5), minimum=0, prices={"eq": (0, 0, 0)},
      objective=lambda x: (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 2 + (x[2] - x[3]) ** 4
      + (x[3] - x[4]) ** 2,
      eq=lambda x: [x[i] + 2 * x[i + 1] + 3 * x[i + 2] - 6 for i in range(3)]),
    M(number=51, objective=lambda x: (x[0] - x[1]) ** 2 + chained(x), minimum=0,
      start=(2.5, 0.5, 2, -1, 0.5), prices={"eq": (0, 0, 0)},
      eq=lambda x: [x[0] + 3 * x[1] - 4, *linear52(x)[1:]]),
    M(number=52, objective=lambda x: (4 * x[0] - x[1]) ** 2 + chained(x), start=(2,) * 5,
      minimum=1859 / 349, eq=linear52),
    M(number=53, objective=lambda x: (x[0] - x[1]) ** 2 + chained(x), start=(2,) * 5,
      minimum=176 / 43, eq=linear52, lower=(-10,) * 5, upper=(10,) * 5),
    M(number=78, objective=jnp.prod, start=(-2, 1.5, 2, -1, -1), minimum=-2.91970041,
      eq=lambda x: [x @ x - 10, x[1] * x[2] - 5 * x[3] * x[4], x[0] ** 3 + x[1] ** 3 + 1]),
    M(number=79, start=(2,) * 5, minimum=0.0787768209,
      objective=lambda x: (x[0] - 1) ** 2 + (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 2
      + (x[2] - x[3]) ** 4 + (x[3] - x[4]) ** 4,
      eq=lambda x: [x[0] + x[1] ** 2 + x[2] ** 3 - 2 - 3 * R2,
                    x[1] - x[2] ** 2 + x[3] + 2 - 2 * R2, x[0] * x[4] - 2]),
)  # fmt: skip
LARGER = (
    M(number=43, start=(0,) * 4, minimum=-44, ineq=hs43_ineq, prices={"ineq": (1, 0, 2)},
      objective=lambda x: x[:4] @ x[:4] + x[2] ** 2 - 5 * x[0] - 5 * x[1] - 21 * x[2] + 7 * x[3]),
    M(number=76, objective=hs76, start=(0.5,) * 4, minimum=-4.6818181818, lower=(0,) * 4,
      ineq=lambda x: [5 - x[0] - 2 * x[1] - x[2] - x[3], 4 - 3 * x[0] - x[1] - 2 * x[2] + x[3],
                      x[1] + 4 * x[2] - 1.5],
      prices={"ineq": (5 / 11, 0, 0), "lower": (0, 0, 19 / 11, 0)}),
    M(number=100, objective=hs100, start=(1, 2, 0, 4, 0, 1, 1), minimum=680.6300573,
      ineq=hs100_ineq, prices={"ineq": (1.1397, 0, 0, 0.36861)}),
)  # fmt: skip
MIXED = (
    M(number=14, objective=lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2, start=(2, 2),
      minimum=9 - 2.875 * R7, eq=lambda x: [x[0] - 2 * x[1] + 1],
      ineq=lambda x: [1 - 0.25 * x[0] ** 2 - x[1] ** 2],
      prices={"eq": (1.59449,), "ineq": (1.84659,)}),
    M(number=32, start=(0.1, 0.7, 0.2), minimum=1, lower=(0, 0, 0), prices={"lower": (0, 4, 0)},
      objective=lambda x: (x[0] + 3 * x[1] + x[2]) ** 2 + 4 * (x[0] - x[1]) ** 2,
      eq=lambda x: [1 - x[0] - x[1] - x[2]],
      ineq=lambda x: [6 * x[1] + 4 * x[2] - x[0] ** 3 - 3]),
    M(number=71, objective=lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
      start=(1, 5, 5, 1), minimum=17.0140172892, lower=(1,) * 4, upper=(5,) * 4,
      eq=lambda x: [x @ x - 40], ineq=lambda x: [x[0] * x[1] * x[2] * x[3] - 25],
      prices={"eq": (0.1614686,), "ineq": (0.5522937,), "lower": (1.0878712, 0, 0, 0)}),
)  # fmt: skip


class Family:
    """Members of one shape as one problem."""

    def __init__(self, name: str, members: tuple[Member, ...]):
        self.name, self.members = name, members
        self.n = max(len(m.start) for m in members)
        counts = [self._count(m) for m in members]
        self.equal = max(c[0] for c in counts)
        self.unequal = max(c[1] for c in counts)
        assert all(c[0] == self.equal for c in counts)  # a row 0 = 0 would make LICQ fail
        self.problem = jol.Problem(
            self._switch(lambda m: m.objective),
            eq=self._switch(lambda m: lambda x: jnp.stack(m.eq(x))) if self.equal else None,
            ineq=self._switch(self._ineq) if self.unequal else None,
            bounds=lambda index, lower, upper: (lower, upper),
        )

    def __str__(self) -> str:
        return self.name

    def _count(self, member: Member) -> tuple[int, int]:
        x = jnp.ones(self.n)
        return len(member.eq(x)), len(member.ineq(x))

    def _ineq(self, member: Member) -> Callable:
        def turned(x):
            rows = [-jnp.asarray(g) for g in member.ineq(x)]
            rows += [-jnp.ones((), x.dtype)] * (self.unequal - len(rows))
            return jnp.stack(rows)

        return turned

    def _switch(self, part: Callable) -> Callable:
        branches = [part(m) for m in self.members]
        return lambda x, index, lower, upper: jax.lax.switch(index, branches, x)

    def data(self, i: int, dtype=np.float64) -> tuple[jax.Array, tuple]:
        """Start and arguments of member i."""
        member, n = self.members[i], self.n
        size = len(member.start)
        lower, upper = np.zeros(n), np.zeros(n)
        lower[:size] = member.lower or -INF
        upper[:size] = member.upper or INF
        start = np.zeros(n)
        start[:size] = member.start
        cast = lambda value: jnp.asarray(value, dtype)
        return cast(start), (jnp.asarray(i, jnp.int32), cast(lower), cast(upper))


FAMILIES = (
    Family("plane", PLANE),
    Family("space", SPACE),
    Family("curve", CURVE),
    Family("two equations", TWO_EQUATIONS),
    Family("three equations", THREE_EQUATIONS),
    Family("larger", LARGER),
    Family("mixed", MIXED),
)
