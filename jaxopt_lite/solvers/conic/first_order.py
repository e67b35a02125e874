"""The primal-dual hybrid gradient method: large programs, by products with the matrices alone.

    minimise  1/2 x'Px + q'x    s.t.    rows of A: Kx = b,  rows of G: Kx <= b,  x within bounds

is the saddle point of 1/2 x'Px + q'x + y'(Kx - b) over x within its bounds and y >= 0 on the rows
of G. One iteration T descends in x, and climbs in y at the point that x is heading for:

    x+ = clip(x - tau (Px + q + K'y))         y+ = project(y + sigma (K(2 x+ - x) - b))

What makes it fast is around it: equilibrated data, Halpern's anchor with reflection, restarts, and
a balance of the two step sizes. A step of this solver is 64 iterations; then the residuals of T(z),
which is within its bounds, are measured in the units of the data.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import Multipliers, Point, QuadraticProgram, Report, Residuals, Status
from ...core.stopping import default_tolerance
from ...linalg import norm_inf
from .base import ProgramSolver, Proof, program_solver
from .matrices import has_entries, row_largest, row_total, sole_diagonal, times

INNER = 64  # iterations a step
RUIZ = 10  # rounds of equilibration
POWER = 40  # power iterations before the first step; one more in each
MARGIN = 0.99  # of the longest step that theory allows, for what power iteration misses
CAUTION = 0.2  # of the longest step that a move allows, where that is more; 1 does not converge
LONGEST = 10  # times the safe step
# Steps without progress after which lengths are safe, for rays need that they are constant: this
TRUST, FRACTION = 8, 0.85  # many, and this part of all steps.
# Restarts: when the fixed-point residual has fallen to SUFFICIENT of that at the anchor, or to
# NECESSARY and grows again, or after ARTIFICIAL of all iterations so far.
SUFFICIENT, NECESSARY, ARTIFICIAL = 0.2, 0.8, 0.2
# The controller of log omega, read at restarts; EVEN is what the ratio of the residuals adds.
PROPORTIONAL, INTEGRAL, FORGET, EVEN = 0.5, 0.01, 0.3, 0.2
PATIENCE = 128  # steps at rounding level without progress before giving up


class Rows(NamedTuple):
    """A number for each row of A and of G; None where there is no such matrix."""

    eq: Any
    ineq: Any


class Pair(NamedTuple):
    """z = (x, y) and the product Kx, scaled; or a difference of two."""

    x: Array
    y: Rows
    product: Rows


class Scaling(NamedTuple):
    """x = columns * scaled x, y = rows * scaled y."""

    columns: Array
    rows: Rows


class Power(NamedTuple):
    """Power iteration on K'K and P, scaled; it never ends, so that estimates are exact one day."""

    stretched: Array  # (n,)
    bent: Array  # (n,)
    stretch: Array  # ||K||
    bend: Array  # ||P||, 0 if the proximal step takes P exactly


class Balance(NamedTuple):
    """omega, the square root of sigma / tau in a linear program, and what its controller knows."""

    omega: Array
    errors: Array  # past errors, summed up and forgotten by and by
    best: Array  # omega where primal and dual residuals were most alike
    gap: Array  # |log| of their ratio there


class Sizes(NamedTuple):
    """Of a step: of x, of y, and how far beyond T(z) the reflection is."""

    tau: Array
    sigma: Array
    rho: Array


class PDHGState(NamedTuple):
    """Between two steps of 64 iterations."""

    # at the end of the step, unscaled
    report: Report
    ray: Pair  # the last move T(z) - z
    # the iteration, scaled
    z: Pair
    anchor: Pair
    inner: Array  # iterations since the anchor
    total: Array
    length: Array  # of the next step
    anchored: Array  # ||z - T(z)|| at the anchor
    last: Array  # and after the last step
    balance: Balance
    # the data
    power: Power
    scaling: Scaling
    exact: Array  # (n,) the diagonal of the scaled P if it has nothing else; otherwise 0
    # progress
    least: Array  # the smallest residual so far
    idle: Array  # steps since


@program_solver
class PDHG(ProgramSolver):
    """Restarted Halpern PDHG with reflection: programs too large to factorise; on many devices.

    z_{k+1} = (k+1)/(k+2) [T(z_k) + rho (T(z_k) - z_k)] + 1/(k+2) z_0, T the iteration of the module
    docstring, which does not expand ||z||_M^2 = ||x||^2/tau + ||y||^2/sigma - 2 y'Kx; M's norm of
    z - T(z) decides when z_0 is renewed. Linear programs and those with a diagonal P (the proximal
    step then takes it exactly) have tau sigma ||K||^2 = 1 and rho = 1; any other P shortens tau to
    1 / (omega ||K|| + ||P||), and rho to 1/2. Steps are longer where moves are far from the
    singular vectors of ||K||: that part has no theory, and halves the iterations on transport.
    Arrays and BCOO are equilibrated by Ruiz and Pock-Chambolle; operators (`shape`, `@`, `T`) are
    taken as they are: scale them well.

    Cost: a product with K, K' and P each an iteration; about twelve vectors of memory. Linear
    convergence, at a rate set by the conditioning: 1e-4 comes soon, 1e-8 perhaps never. Residuals
    are relative: to 1 + ||q||, to 1 + ||(b, h, bounds)||, infinity norms, complementarity and
    duality gap to 1 + |value| + |dual value|. In float32 expect 1e-4. Where there is no answer,
    z - T(z) tends to a ray that proves it; it is verified before the solver gives up.

    Source: Chambolle & Pock (2011); Condat (2013) for P; Applegate et al. (2021, PDLP) for scaling
    and restarts, (2024) for rays; Lu & Yang (2024, r2HPDHG) for anchor and reflection; Lu, Peng &
    Yang (2025, cuPDLPx) for the controller; Lu et al. (2024, MPAX) for the lengths.
    """

    tol: ArrayLike | None = None

    def init(self, problem, point, program):
        """Equilibrate the data and estimate norms; nothing is measured."""
        dtype = point.x.dtype
        scaling = _equilibrated(program, dtype)
        exact = jnp.zeros_like(point.x)
        if program.P is not None:
            exact = scaling.columns**2 * sole_diagonal(program.P, dtype)
        data = Scaled(program, scaling, exact)
        m = point.multipliers
        y = jax.tree.map(jnp.divide, Rows(m.eq, m.ineq), scaling.rows)
        x = data.clip(point.x / scaling.columns)
        z = Pair(x, y, data.forward(x))
        zero, infinite = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
        any_vector = jax.random.normal(jax.random.key(0), point.x.shape, dtype)
        power = Power(any_vector, any_vector, zero, zero)
        power = lax.fori_loop(0, POWER, lambda _, p: data.power(p), power)
        size_q, size_b = jnp.linalg.norm(data.cost), jnp.sqrt(_squares(data.finite_sides()))
        both = (size_q > 0) & (size_b > 0)
        omega = jnp.where(both, size_q / jnp.where(both, size_b, 1), 1)
        unmeasured = Residuals(infinite, infinite, infinite, infinite)
        ones = Residuals(*(zero + 1 for _ in range(4)))
        running = jnp.int32(Status.RUNNING)
        report = Report(point, zero, unmeasured, jnp.zeros((), bool), running, ones, infinite)
        return PDHGState(
            report=report,
            ray=jax.tree.map(jnp.zeros_like, z),
            z=z,
            anchor=z,
            inner=jnp.int32(0),
            total=jnp.int32(0),
            length=zero,
            anchored=infinite,
            last=infinite,
            balance=Balance(omega, zero, omega, infinite),
            power=power,
            scaling=scaling,
            exact=exact,
            least=infinite,
            idle=jnp.int32(0),
        )

    def step(self, problem, state, program):
        """64 iterations; then residuals, rays, and whether to restart."""
        data = Scaled(program, state.scaling, state.exact)
        power = data.power(state.power)
        anchor, omega, dtype = state.anchor, state.balance.omega, state.z.x.dtype
        safe = MARGIN / jnp.where(power.stretch > 0, power.stretch, 1)
        sizes = _sizes(safe, omega, power.bend)

        def halpern(k: Array, z: Pair, image: Pair) -> Pair:
            weight = ((k + 1) / (k + 2)).astype(dtype)
            return jax.tree.map(
                lambda z, t, start: start + weight * (t - start + sizes.rho * (t - z)),
                z, image, anchor,
            )  # fmt: skip

        def iteration(i: Array, carry: tuple[Pair, Array, Array]) -> tuple[Pair, Array, Array]:
            z, k, length = carry
            image = data.iterate(z, _sizes(length, omega, power.bend))
            limit = CAUTION * _limit(z, image, omega)
            accept = (length <= limit) | (length <= safe)
            age = (state.total + i + 2).astype(dtype)
            shorter, longer = (1 - age**-0.4) * limit, (1 + age**-0.8) * length
            z = jax.tree.map(lambda new, old: jnp.where(accept, new, old), halpern(k, z, image), z)
            return (
                z,
                k + accept.astype(k.dtype),
                jnp.clip(jnp.minimum(shorter, longer), safe, longest),
            )

        # Restarts compare norms, which must all be of steps of the safe length.
        first = data.distance(state.z, data.iterate(state.z, sizes), sizes)
        anchored = jnp.where(state.inner == 0, first, state.anchored)
        trusted = (state.idle < TRUST) | (_part(INNER * state.idle, state.total, dtype) < FRACTION)
        longest = jnp.where(trusted, LONGEST * safe, safe)
        begin = (state.z, state.inner, jnp.clip(state.length, safe, longest))
        z, inner, length = lax.fori_loop(0, INNER - 1, iteration, begin)
        image = data.iterate(z, sizes)
        now = data.distance(z, image, sizes)
        total = state.total + INNER

        report, relative, gap = self._measured(program, data.point(image))
        restart = (now <= SUFFICIENT * anchored) | (
            inner.astype(dtype) >= ARTIFICIAL * total.astype(dtype)
        )
        restart |= (now <= NECESSARY * anchored) & (now > state.last)
        fresh = (image, image, _rebalanced(state.balance, anchor, image, relative), 0, jnp.inf)
        onward = (halpern(inner, z, image), anchor, state.balance, inner + 1, now)
        chosen = jax.tree.map(lambda new, old: jnp.where(restart, new, old), fresh, onward)
        z_next, anchor, balance, inner, last = chosen

        ray = data.unscaled(jax.tree.map(jnp.subtract, image, z))
        worst = jnp.maximum(relative.worst(), gap)
        better = worst < 0.9 * state.least
        idle = jnp.where(better, 0, state.idle + 1)
        size = data.distance(image, jax.tree.map(jnp.zeros_like, z), sizes)
        stuck = (idle > PATIENCE) & (2 * INNER * idle > total)
        stuck &= now <= jnp.finfo(dtype).eps ** 0.5 * size
        failure = jnp.where(stuck, int(Status.STALLED), int(Status.RUNNING))
        limit = max(1e-8, 100 * float(jnp.finfo(dtype).eps))
        unbounded = _direction(program, ray.x)[1] <= limit
        failure = jnp.where(unbounded, int(Status.DUAL_INFEASIBLE), failure)
        empty = _farkas(program, ray.y, report.point.x)[1] <= limit
        failure = jnp.where(empty, int(Status.PRIMAL_INFEASIBLE), failure)
        report = report._replace(failure=failure.astype(jnp.int32))
        # What is not finite is not handed out: the point stays the last one that was.
        sound = jnp.isfinite(report.value + worst)
        kept = jax.tree.map(
            lambda new, old: jnp.where(sound, new, old), report.point, state.report.point
        )
        return PDHGState(
            report=report._replace(point=kept),
            ray=ray,
            z=z_next,
            anchor=anchor,
            inner=inner,
            total=total,
            length=length,
            anchored=anchored,
            last=last,
            balance=balance,
            power=power,
            scaling=state.scaling,
            exact=state.exact,
            least=jnp.where(better, worst, state.least),
            idle=idle,
        )

    def report(self, problem, state, program):
        """What the last step measured."""
        return state.report

    def proof(self, problem, state, program):
        """The rays made of the last move."""
        farkas, _ = _farkas(program, state.ray.y, state.ray.x)
        direction, _ = _direction(program, state.ray.x)
        empty = state.report.failure == int(Status.PRIMAL_INFEASIBLE)
        unbounded = state.report.failure == int(Status.DUAL_INFEASIBLE)
        return Proof(
            jax.tree.map(lambda price: jnp.where(empty, price, 0), farkas),
            jnp.where(unbounded, direction, 0),
        )

    def _measured(self, program: QuadraticProgram, point: Point) -> tuple[Report, Residuals, Array]:
        """The report on (x, y), where prices of bounds are open; relative residuals and gap.

        The gradient g of the Lagrangian is paid for by the bound that it pushes against, as far as
        that is good: with the price g / (1 + slack), in their units, what stays of g is no larger
        than the complementarity. It is all of g on the bound, and nothing far from it.
        """
        x, m = point
        one = jnp.ones((), x.dtype)
        zeros = jnp.zeros_like(x)
        below = None if program.lower is None else zeros
        above = None if program.upper is None else zeros
        m = Multipliers(m.eq, m.ineq, below, above)
        g = program.gradient(Point(x, m))
        unit_g = 1 + norm_inf(program.q)
        value = program.value(x)
        rough = 1 + jnp.abs(value)
        if program.lower is not None:
            room = jnp.maximum(x - program.lower, 0) * (unit_g / rough)
            below = jnp.maximum(g, 0) / (1 + room)
        if program.upper is not None:
            room = jnp.maximum(program.upper - x, 0) * (unit_g / rough)
            above = jnp.maximum(-g, 0) / (1 + room)
        point = Point(x, Multipliers(m.eq, m.ineq, below, above))
        dual_value = program.dual_value(point)
        unit_value = rough + jnp.abs(dual_value)
        sides = (program.b, program.h, program.lower, program.upper)
        size = one
        for side in sides:
            if side is not None:
                size = jnp.maximum(size, 1 + norm_inf(jnp.where(jnp.isfinite(side), side, 0)))
        units = Residuals(unit_g, size, one, unit_value)
        gap = jnp.abs(value - dual_value) / unit_value
        tol = default_tolerance(x.dtype) if self.tol is None else jnp.asarray(self.tol, x.dtype)
        running = jnp.int32(Status.RUNNING)
        residuals = program.residuals(point)
        pairs = zip(residuals, units, strict=True)
        relative = Residuals(*(residual / unit for residual, unit in pairs))
        fits, exact = gap <= tol, value - dual_value
        return Report(point, value, residuals, fits, running, units, exact), relative, gap


# -- the iteration, in scaled variables ------------------------------------------------------------


class Scaled(NamedTuple):
    """The program in scaled variables; products are scaled as they are made, the data are not."""

    program: QuadraticProgram
    scaling: Scaling
    exact: Array

    @property
    def cost(self) -> Array:
        """Scaled q."""
        return self.scaling.columns * self.program.q

    @property
    def sides(self) -> Rows:
        """Scaled b and h."""
        return _scale(self.scaling.rows, Rows(self.program.b, self.program.h))

    def finite_sides(self) -> Rows:
        """The same, 0 where infinite."""
        return jax.tree.map(lambda side: jnp.where(jnp.isfinite(side), side, 0), self.sides)

    def forward(self, x: Array) -> Rows:
        """Kx."""
        x = self.scaling.columns * x
        A, G = self.program.A, self.program.G
        rows = Rows(None if A is None else times(A, x), None if G is None else times(G, x))
        return _scale(self.scaling.rows, rows)

    def back(self, y: Rows) -> Array:
        """K'y."""
        y = _scale(self.scaling.rows, y)
        total = jnp.zeros_like(self.scaling.columns)
        if self.program.A is not None:
            total = total + times(self.program.A.T, y.eq)
        if self.program.G is not None:
            total = total + times(self.program.G.T, y.ineq)
        return self.scaling.columns * total

    def curve(self, x: Array) -> Array:
        """Px."""
        if self.program.P is None:
            return jnp.zeros_like(x)
        return self.scaling.columns * times(self.program.P, self.scaling.columns * x)

    def clip(self, x: Array) -> Array:
        """The nearest point within the bounds."""
        lower, upper = self.program.lower, self.program.upper
        lower = None if lower is None else lower / self.scaling.columns
        upper = None if upper is None else upper / self.scaling.columns
        return jnp.clip(x, lower, upper)

    def iterate(self, z: Pair, sizes: Sizes) -> Pair:
        """T(z)."""
        slope = self.curve(z.x) - self.exact * z.x + self.cost + self.back(z.y)
        x = self.clip((z.x - sizes.tau * slope) / (1 + sizes.tau * self.exact))
        product = self.forward(x)
        y = jax.tree.map(
            lambda y, new, old, side: y + sizes.sigma * (2 * new - old - side),
            z.y, product, z.product, self.sides,
        )  # fmt: skip
        return Pair(x, y._replace(ineq=None if y.ineq is None else jnp.maximum(y.ineq, 0)), product)

    def distance(self, z: Pair, image: Pair, sizes: Sizes) -> Array:
        """||z - image|| in the norm M."""
        move = jax.tree.map(jnp.subtract, z, image)
        square = jnp.vdot(move.x, move.x) / sizes.tau + _squares(move.y) / sizes.sigma
        return jnp.sqrt(jnp.maximum(square - 2 * _cross(move), 0))

    def power(self, power: Power) -> Power:
        """One more power iteration on each matrix."""
        v = _unit(power.stretched)
        ahead = self.forward(v)
        stretch = jnp.maximum(power.stretch, jnp.sqrt(_squares(ahead)))
        u = _unit(power.bent)
        bent = self.curve(u) - self.exact * u
        bend = jnp.maximum(power.bend, jnp.linalg.norm(bent))
        return Power(self.back(ahead), bent, stretch, bend)

    def unscaled(self, z: Pair) -> Pair:
        """The pair in the variables of the program."""
        product = jax.tree.map(jnp.divide, z.product, self.scaling.rows)
        return Pair(self.scaling.columns * z.x, _scale(self.scaling.rows, z.y), product)

    def point(self, z: Pair) -> Point:
        """The same as a point, within the bounds in spite of rounding."""
        x, y, _ = self.unscaled(z)
        x = jnp.clip(x, self.program.lower, self.program.upper)
        return Point(x, Multipliers(y.eq, y.ineq))


def _sizes(length: Array, omega: Array, bend: Array) -> Sizes:
    """Sizes of a step, and the reflection that keeps T nonexpansive when length ||K|| <= 1.

    1/tau - sigma ||K||^2 >= ||P|| makes the gradient of P cocoercive with constant one in the norm
    M, T averaged with 2/3, and T + (T - z) / 2 nonexpansive. Source: Condat (2013), theorem 3.1.
    """
    tau = 1 / (omega / length + bend / MARGIN)
    return Sizes(tau, omega * length, jnp.where(bend > 0, 0.5, 1.0).astype(tau.dtype))


def _part(count: Array, total: Array, dtype) -> Array:
    return count.astype(dtype) / jnp.maximum(total, 1).astype(dtype)


def _limit(z: Pair, image: Pair, omega: Array) -> Array:
    """The longest step that this move allows, at least 1 / ||K||. Applegate et al. (2021), 3.1."""
    move = jax.tree.map(jnp.subtract, z, image)
    square = omega * jnp.vdot(move.x, move.x) + _squares(move.y) / omega
    cross = 2 * jnp.abs(_cross(move))
    far = jnp.asarray(jnp.finfo(square.dtype).max ** 0.25, square.dtype)
    return jnp.where(cross > 0, jnp.minimum(square / jnp.where(cross > 0, cross, 1), far), far)


def _cross(move: Pair) -> Array:
    """The product y'Kx."""
    products = jax.tree.leaves(jax.tree.map(jnp.vdot, move.y, move.product))
    return sum(products, start=jnp.zeros((), move.x.dtype))


def _rebalanced(balance: Balance, anchor: Pair, z: Pair, residuals: Residuals) -> Balance:
    """Omega towards ||dy|| / ||dx||, distances between anchors, and towards even residuals.

    Where these tell nothing, back to the omega with the most even residuals so far.
    """
    move = jax.tree.map(jnp.subtract, z, anchor)
    far_x, far_y = jnp.linalg.norm(move.x), jnp.sqrt(_squares(move.y))
    tiny = jnp.finfo(far_x.dtype).tiny ** 0.5
    dual, primal = jnp.maximum(residuals.stationarity, tiny), jnp.maximum(residuals.primal, tiny)
    ratio = jnp.log(dual / primal)
    usable = (far_x > tiny) & (far_y > tiny) & (jnp.abs(ratio) < 18)
    error = jnp.log(far_y / far_x) - jnp.log(balance.omega) - EVEN * jnp.clip(ratio, -3, 3)
    error = jnp.where(usable, error, 0)
    errors = jnp.where(usable, FORGET * balance.errors + error, 0)
    omega = balance.omega * jnp.exp(PROPORTIONAL * error + INTEGRAL * errors)
    omega = jnp.where(usable, omega, balance.best)
    even = jnp.abs(ratio) < balance.gap
    return Balance(
        omega,
        errors,
        jnp.where(even, omega, balance.best),
        jnp.where(even, jnp.abs(ratio), balance.gap),
    )


def _equilibrated(program: QuadraticProgram, dtype) -> Scaling:
    """Ruiz: largest entries towards 1; then Pock-Chambolle: roots of sums of entries."""
    ones = lambda matrix: None if matrix is None else jnp.ones(matrix.shape[0], dtype)
    scaling = Scaling(jnp.ones_like(program.q), Rows(ones(program.A), ones(program.G)))
    matrices = [k for k in (program.P, program.A, program.G) if k is not None]
    if not all(has_entries(matrix) for matrix in matrices):
        return scaling

    def refine(scaling: Scaling, size, join) -> Scaling:
        columns, rows = scaling
        across = Rows(
            None if program.A is None else rows.eq * size(program.A, columns),
            None if program.G is None else rows.ineq * size(program.G, columns),
        )
        down = jnp.zeros_like(columns)
        if program.A is not None:
            down = join(down, columns * size(program.A.T, rows.eq))
        if program.G is not None:
            down = join(down, columns * size(program.G.T, rows.ineq))
        if program.P is not None:
            down = join(down, columns * size(program.P, columns))
        shrink = lambda scale, size: scale / jnp.sqrt(jnp.where(size > 0, size, 1))
        return Scaling(shrink(columns, down), jax.tree.map(shrink, rows, across))

    scaling = lax.fori_loop(0, RUIZ, lambda _, s: refine(s, row_largest, jnp.maximum), scaling)
    return refine(scaling, row_total, jnp.add)


# -- rays ------------------------------------------------------------------------------------------


def _farkas(program: QuadraticProgram, y: Rows, x: Array) -> tuple[Multipliers, Array]:
    """The prices with y that sum the constraints up to 0 <= -1, and by how much they miss the 0."""
    zeros = jnp.zeros_like(x)
    eq, ineq = y
    if program.h is not None:
        ineq = jnp.where(jnp.isfinite(program.h), jnp.maximum(ineq, 0), 0)
    below = None if program.lower is None else zeros
    above = None if program.upper is None else zeros
    pull = program.pull(Multipliers(eq, ineq, below, above)) + zeros
    left = pull
    if program.lower is not None:
        below = jnp.where(jnp.isfinite(program.lower), jnp.maximum(pull, 0), 0)
        left = left - below
    if program.upper is not None:
        above = jnp.where(jnp.isfinite(program.upper), jnp.maximum(-pull, 0), 0)
        left = left + above
    prices = Multipliers(eq, ineq, below, above)
    worth = program._replace(P=None).dual_value(Point(zeros, prices))
    return _normalised(prices, worth, norm_inf(left))


def _direction(program: QuadraticProgram, d: Array) -> tuple[Array, Array]:
    """The direction d with slope -1, and by how much it leaves the feasible set and bends up."""
    if program.lower is not None:
        d = jnp.where(jnp.isfinite(program.lower), jnp.maximum(d, 0), d)
    if program.upper is not None:
        d = jnp.where(jnp.isfinite(program.upper), jnp.minimum(d, 0), d)
    miss = jnp.zeros((), d.dtype)
    if program.P is not None:
        miss = jnp.maximum(miss, norm_inf(times(program.P, d)))
    if program.A is not None:
        miss = jnp.maximum(miss, norm_inf(times(program.A, d)))
    if program.G is not None and program.h is not None:
        rise = jnp.where(jnp.isfinite(program.h), times(program.G, d), 0)
        miss = jnp.maximum(miss, jnp.max(rise, initial=0))
    return _normalised(d, -jnp.vdot(program.q, d), miss)


def _normalised(ray, worth: Array, miss: Array):
    """(ray, miss) divided by its worth; infinitely bad if it is worth nothing."""
    safe = jnp.where(worth > 0, worth, 1)
    ray = jax.tree.map(lambda leaf: leaf / safe, ray)
    return ray, jnp.where(worth > 0, miss / safe, jnp.inf)


def _scale(rows: Rows, y: Rows) -> Rows:
    return jax.tree.map(jnp.multiply, rows, y)


def _squares(tree) -> Array:
    """Sum of squares of all numbers."""
    total = [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)]
    return sum(total[1:], start=total[0]) if total else jnp.zeros(())


def _unit(v: Array) -> Array:
    """V / ||v||, 0 for 0."""
    size = jnp.linalg.norm(v)
    return v / jnp.where(size > 0, size, 1)
