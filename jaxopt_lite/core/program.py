"""Quadratic and linear programs: the data, and the mathematics that follows from it alone.

    minimise    1/2 x'Px + q'x     subject to    Ax = b,   Gx <= h,   lower <= x <= upper

P is symmetric positive semidefinite; without it the program is linear. With multipliers y of the
equations, z of the inequalities, l and u of the bounds, the last three >= 0, the dual is

    maximise    -1/2 x'Px - b'y - h'z + lower'l - upper'u    s.t.    Px + q + A'y + G'z - l + u = 0

Infinite entries of h, lower and upper, and those from 1e19 on, stand for constraints that are not
there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..linalg import norm_inf
from .problem import Problem
from .types import Multipliers, Point, Residuals

INFINITY = 1e19  # from here on a side is not there, as files and other solvers have it
Matrix = Any  # an array, or what has `shape`, `@` and `T`: BCOO, a linear operator


class QuadraticProgram(NamedTuple):
    """The arrays of a program; a field is None where there is nothing of the kind. A pytree.

    P (n, n), q (n,), A (m, n), b (m,), G (p, n), h (p,), lower (n,), upper (n,). `solve_qp(*qp)`
    solves it, `certify(qp, solution)` says what the answer is worth.
    """

    P: Matrix | None
    q: Array
    A: Matrix | None = None
    b: Array | None = None
    G: Matrix | None = None
    h: Array | None = None
    lower: Array | None = None
    upper: Array | None = None

    @classmethod
    def from_rows(
        cls,
        P: ArrayLike | None,
        q: ArrayLike,
        rows: ArrayLike,
        least: ArrayLike,
        most: ArrayLike,
        lower: ArrayLike | None = None,
        upper: ArrayLike | None = None,
        infinity: float = INFINITY,
    ) -> "QuadraticProgram":
        """The program with least <= rows @ x <= most, as files and other packages have it.

        Rows with equal sides become equations, finite sides of the others inequalities. `rows` may
        be a `BCOO` or SciPy sparse matrix. Needs concrete arrays: what becomes of a row depends on
        its numbers. From `infinity` on a number counts as infinite.
        """
        least, most = np.asarray(least), np.asarray(most)
        least = np.where(least <= -infinity, -np.inf, least)
        most = np.where(most >= infinity, np.inf, most)
        equal = least == most
        above, below = ~equal & np.isfinite(most), ~equal & np.isfinite(least)
        pick, stack = _row_tools(rows)
        G = stack([pick(above, 1), pick(below, -1)])
        h = np.concatenate([most[above], -least[below]])

        def sides(bound, sign):
            if bound is None:
                return None
            bound = np.asarray(bound)
            bound = np.where(sign * bound >= infinity, sign * np.inf, bound)
            return jnp.asarray(bound) if np.any(np.isfinite(bound)) else None

        return cls(
            P if P is None or _is_matrix(P) else jnp.asarray(P),
            jnp.asarray(q),
            pick(equal, 1) if equal.any() else None,
            jnp.asarray(least[equal]) if equal.any() else None,
            G if h.size else None,
            jnp.asarray(h) if h.size else None,
            sides(lower, -1),
            sides(upper, 1),
        )

    # -- the mathematics ----------------------------------------------------------------------

    def value(self, x: Array) -> Array:
        """1/2 x'Px + q'x."""
        linear = jnp.vdot(self.q, x)
        return linear if self.P is None else linear + 0.5 * jnp.vdot(x, self.P @ x)

    def slacks(self, x: Array) -> Multipliers:
        """Ax - b, Gx - h, lower - x, x - upper; -1 where there is no side, which never binds."""
        eq = None if self.A is None else self.A @ x - self.b
        ineq = None if self.G is None else _finite_or_minus_one(self.G @ x - self.h)
        below = None if self.lower is None else _finite_or_minus_one(self.lower - x)
        above = None if self.upper is None else _finite_or_minus_one(x - self.upper)
        return Multipliers(eq, ineq, below, above)

    def pull(self, prices: Multipliers) -> Array | float:
        """A'y + G'z - l + u: what the constraints add to the gradient."""
        pulls = []
        if self.A is not None:
            pulls.append(self.A.T @ prices.eq)
        if self.G is not None:
            pulls.append(self.G.T @ prices.ineq)
        if self.lower is not None:
            pulls.append(-prices.lower)
        if self.upper is not None:
            pulls.append(prices.upper)
        return sum(pulls[1:], start=pulls[0]) if pulls else 0.0

    def gradient(self, point: Point) -> Array:
        """Px + q + A'y + G'z - l + u, zero at the answer."""
        own = self.q if self.P is None else self.P @ point.x + self.q
        return own + self.pull(point.multipliers)

    def residuals(self, point: Point) -> Residuals:
        """The optimality conditions, unscaled."""
        slacks = self.slacks(point.x)
        primal = zero = jnp.zeros((), point.x.dtype)
        dual = complementarity = zero
        if slacks.eq is not None:
            primal = norm_inf(slacks.eq)
        for price, slack in zip(point.multipliers[1:], slacks[1:], strict=True):
            if slack is not None:
                primal = jnp.maximum(primal, jnp.max(slack, initial=0))
                dual = jnp.maximum(dual, -jnp.min(price, initial=0))
                complementarity = jnp.maximum(complementarity, norm_inf(price * slack))
        return Residuals(norm_inf(self.gradient(point)), primal, dual, complementarity)

    def dual_value(self, point: Point) -> Array:
        """-1/2 x'Px - b'y - h'z + lower'l - upper'u: at most the optimal value, if `point` is
        dual feasible: gradient zero, prices of inequalities and bounds not negative.
        """
        m = point.multipliers
        total = jnp.zeros((), point.x.dtype)
        if self.P is not None:
            total = total - 0.5 * jnp.vdot(point.x, self.P @ point.x)
        pairs = ((self.b, m.eq, -1), (self.h, m.ineq, -1), (self.lower, m.lower, 1))
        for side, price, sign in (*pairs, (self.upper, m.upper, -1)):
            if side is not None:
                total = total + sign * jnp.vdot(jnp.where(jnp.isinf(side), 0, side), price)
        return total

    def gap(self, point: Point) -> Array:
        """Value less dual value: what a primal and dual feasible point can be wrong by."""
        return self.value(point.x) - self.dual_value(point)

    def problem(self) -> Problem:
        """The same as a `Problem` whose `args` are `(self,)`, for all that takes one."""
        return Problem(
            _value,
            eq=None if self.A is None else _equations,
            ineq=None if self.G is None else _inequalities,
            bounds=None if self.lower is None and self.upper is None else _bounds,
        )


# -- the same as functions of (x, program), for `Problem` ------------------------------------------


def _value(x: Array, program: QuadraticProgram) -> Array:
    return program.value(x)


def _equations(x: Array, program: QuadraticProgram) -> Array:
    return program.slacks(x).eq


def _inequalities(x: Array, program: QuadraticProgram) -> Array:
    return program.slacks(x).ineq


def _bounds(program: QuadraticProgram) -> tuple[Array | None, Array | None]:
    return program.lower, program.upper


def dual_of(program: QuadraticProgram) -> QuadraticProgram:
    """The dual program, as a minimisation: its optimal value is minus that of `program`.

        minimise  1/2 w'Pw + b'y + h'z - lower'l + upper'u
        s.t.      Pw + A'y + G'z - l + u = -q,    z, l, u >= 0

    over the vector (w, y, z, l, u), parts that `program` does not have left out; w only if there is
    a P. Prices of infinite sides are held at 0. The multiplier of its equations is minus the primal
    x. Dense: A and G must be arrays.
    """
    P, q, A, b, G, h, lower, upper = program
    n, dtype = q.shape[0], q.dtype
    eye = jnp.eye(n, dtype=dtype)
    columns, costs, least, most = [], [], [], []

    def add(block, cost, low, high):
        columns.append(block)
        costs.append(jnp.where(jnp.isfinite(cost), cost, 0))
        least.append(jnp.full_like(cost, low))
        most.append(jnp.where(jnp.isfinite(cost), jnp.asarray(high, dtype), 0))

    if P is not None:
        add(P, jnp.zeros(n, dtype), -jnp.inf, jnp.inf)
    if A is not None:
        add(A.T, b, -jnp.inf, jnp.inf)
    if G is not None:
        add(G.T, h, 0, jnp.inf)
    if lower is not None:
        add(-eye, -lower, 0, jnp.inf)
    if upper is not None:
        add(eye, upper, 0, jnp.inf)
    if not columns:
        raise ValueError("`dual_of` needs a P or a constraint, but this program has neither.")
    cost = jnp.concatenate(costs)
    curvature = None
    if P is not None:
        curvature = jnp.zeros((cost.size, cost.size), dtype).at[:n, :n].set(P)
    return QuadraticProgram(
        curvature, cost, jnp.concatenate(columns, axis=1), -q,
        lower=jnp.concatenate(least), upper=jnp.concatenate(most),
    )  # fmt: skip


# -- what is refused -------------------------------------------------------------------------------

_SHAPES = {
    "P": ("n", "n"), "q": ("n",), "A": ("m", "n"), "b": ("m",),
    "G": ("p", "n"), "h": ("p",), "lower": ("n",), "upper": ("n",),
}  # fmt: skip


def checked(program: QuadraticProgram) -> QuadraticProgram:
    """The arrays in one dtype, P symmetric; ValueError or TypeError for what makes no program."""
    if program.q is None:
        raise TypeError("`q` must be an array (n,), but None came. Pass zeros for no linear term.")
    for matrix, side in (("A", "b"), ("G", "h")):
        given = [getattr(program, name) is not None for name in (matrix, side)]
        if given[0] != given[1]:
            there, missing = (matrix, side) if given[0] else (side, matrix)
            raise ValueError(f"`{there}` came without `{missing}`: pass both, or neither.")
    arrays = {name: _array(name, value) for name, value in program._asdict().items()}
    shape = np.shape(arrays["q"])
    if len(shape) != 1 or not shape[0]:
        raise ValueError(
            f"`q` must be a vector (n,) with n >= 1, but its shape is {shape}. A batch of programs "
            "goes through `jax.vmap(solve_qp)`."
        )
    sizes = {"n": ("q", shape[0])}
    for name, dims in _SHAPES.items():
        if arrays[name] is None:
            continue
        if name in ("lower", "upper") and arrays[name].shape == ():
            arrays[name] = jnp.broadcast_to(arrays[name], shape)
        got = tuple(arrays[name].shape)
        if len(got) != len(dims):
            raise ValueError(
                f"`{name}` must have the shape ({', '.join(dims)}), but its shape is {got}. A "
                "batch of programs goes through `jax.vmap(solve_qp)`."
            )
        for dim, size in zip(dims, got, strict=True):
            other, expected = sizes.setdefault(dim, (name, size))
            if size != expected:
                raise ValueError(
                    f"`{name}` has the shape {got}, which does not fit `{other}` with the shape "
                    f"{tuple(arrays[other].shape)}: {dim} would be {size} and {expected}."
                )
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(arrays)]
    double = any(dtype == jnp.float64 for dtype in dtypes)
    dtype = jnp.float64 if double else jnp.float32

    def cast(leaf):
        return leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf.astype(dtype)

    arrays = {
        name: jax.tree.map(cast, value) if _is_matrix(value) else _floating(value, dtype)
        for name, value in arrays.items()
    }
    _refuse_numbers(arrays)
    arrays.update({name: _open(name, arrays[name]) for name in ("h", "lower", "upper")})
    if arrays["P"] is not None and not _is_matrix(arrays["P"]):
        arrays["P"] = 0.5 * (arrays["P"] + arrays["P"].T)
    return QuadraticProgram(**arrays)


def _open(name: str, side: Array | None) -> Array | None:
    """A side with what counts as infinite made so."""
    if side is None:
        return None
    sign = -1 if name == "lower" else 1
    return jnp.where(sign * side >= INFINITY, sign * jnp.inf, side)


def _floating(value: Array | None, dtype) -> Array | None:
    return None if value is None else value.astype(dtype)


def _array(name: str, value: Any) -> Any:
    """`value` as an array, matrices that are none left alone."""
    if hasattr(value, "tocoo"):
        raise TypeError(
            f"`{name}` must be an array or a JAX matrix, but a SciPy sparse matrix came. Write "
            "`jax.experimental.sparse.BCOO.from_scipy_sparse(...)`, or `.toarray()`."
        )
    if value is None or _is_matrix(value):
        return value
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` must be an array, but a {type(value).__name__} came. A sparse matrix goes "
            "in as `jax.experimental.sparse.BCOO`."
        ) from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or array.dtype == bool:
        raise TypeError(f"`{name}` must be real, but it is {array.dtype}.")
    return array


def _refuse_numbers(arrays: dict[str, Any]) -> None:
    """NaN, infinities where they mean nothing, crossed bounds: errors where values are known."""
    values = {
        name: np.asarray(value)
        for name, value in arrays.items()
        if value is not None and not _is_matrix(value) and not isinstance(value, jax.core.Tracer)
    }
    for name, value in values.items():
        wrong = np.isnan(value) if name in ("h", "lower", "upper") else ~np.isfinite(value)
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            allowed = "may be infinite, but not NaN" if name in ("h", "lower", "upper") else ""
            raise ValueError(
                f"`{name}` {allowed or 'must be finite'}, but its entry {where} is {value[where]}."
            )
    if "lower" in values and "upper" in values:
        lower, upper = values["lower"], values["upper"]
        crossed = np.flatnonzero(lower > upper)
        if crossed.size:
            i = int(crossed[0])
            raise ValueError(
                f"`lower` must be at most `upper`, but entry {i} has {lower[i]} above {upper[i]}; "
                f"{crossed.size} of {lower.size} are crossed."
            )
    unmeant = {"h": np.less, "lower": np.greater, "upper": np.less}
    for name, side in unmeant.items():
        if name in values:
            far = -np.inf if side is np.less else np.inf
            if np.any(values[name] == far):
                i = int(np.flatnonzero(values[name] == far)[0])
                raise ValueError(
                    f"`{name}` is {far} in entry {i}, which nothing can satisfy. A constraint that "
                    f"is not there has {-far}."
                )


def _is_matrix(value: Any) -> bool:
    """Whether it acts as a matrix without being an array: a BCOO or an operator."""
    if value is None or isinstance(value, (jax.Array, np.ndarray, jax.core.Tracer)):
        return False
    return all(hasattr(value, name) for name in ("shape", "T", "__matmul__"))


def is_dense(program: QuadraticProgram) -> bool:
    """Whether all matrices are arrays."""
    return not any(_is_matrix(value) for value in (program.P, program.A, program.G))


def _row_tools(rows: Any):
    """(rows by mask and sign, stacked blocks) for arrays, BCOO and SciPy's sparse matrices."""
    if not _is_matrix(rows):
        rows = np.asarray(rows)
        return (lambda mask, sign: sign * jnp.asarray(rows[mask])), jnp.concatenate
    from jax.experimental import sparse

    if isinstance(rows, sparse.BCOO):
        data, index = np.asarray(rows.data), np.asarray(rows.indices)
        shape = rows.shape
    else:
        coo = rows.tocoo()
        data, index, shape = coo.data, np.stack([coo.row, coo.col], axis=1), coo.shape

    def pick(mask, sign):
        place = np.cumsum(mask) - 1
        keep = mask[index[:, 0]]
        new = np.stack([place[index[keep, 0]], index[keep, 1]], axis=1)
        size = (int(mask.sum()), shape[1])
        return sparse.BCOO((jnp.asarray(sign * data[keep]), jnp.asarray(new)), shape=size)

    return pick, lambda blocks: sparse.bcoo_concatenate(blocks, dimension=0)


def _finite_or_minus_one(value: Array) -> Array:
    return jnp.where(value == -jnp.inf, -1, value)  # NaN stays
