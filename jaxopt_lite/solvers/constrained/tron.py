"""Newton's method in a trust region within bounds.

H at x  ->  the best of some projected gradient steps (Cauchy)
->  what binds there is held; Newton or CG for the rest, projected; again  ->  trial
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import Point, Report, solver, static
from ...linalg import choose, safe_norm, spectrum
from ..smooth.trust_region import (
    Proposal,
    TrustRegionSkeleton,
    newton_step,
    spectral_step,
    truncated_step,
)
from .projected_search import (
    Box,
    bound_prices,
    bound_residuals,
    box_of,
    crossed_or,
)

EXACT_UP_TO = 200  # variables; above, products with the Hessian
# Subspace steps from one Cauchy point, each with the bounds that bind after the last. On six
# problems of 20 to 200 variables 1, 2 and 3 took 68, 61 and 60 steps.
ROUNDS = 2
# Lengths of projected gradient steps, of the one that is best without bounds; by the exact Hessian,
# and by products, of which each length costs one.
LENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1e3, 1e4)
FEW_LENGTHS = (1.0, 10.0)
# Parts of a subspace step that are projected. It is also tried up to the first bound. Backwards:
# along negative curvature at a stationary point, the sign is free but for the bounds.
PARTS = (1.0, 0.5, 0.25, 0.06, 0.004, -1.0, -0.1)
FEW_PARTS = (1.0, 0.3, -1.0)


class Path(NamedTuple):
    """A step of the model, on its way."""

    step: Array  # s
    image: Array  # H s
    decrease: Array
    settled: Array


@solver(accepts={"bounds"})
class TRON(TrustRegionSkeleton):
    """Newton's method in a trust region, within bounds.

    From the best of some projected gradient steps, which decides what binds, the minimiser of
    g'p + p'Hp/2 in the variables that are free there, projected; and again. So the active set can
    change as a whole in a step; once it is right, steps are Newton's in what is free: quadratic
    near an answer with positive multipliers and H definite on the free variables. CONVERGED means
    small residuals and no curvature below -sqrt(eps) max|H| on the variables between their bounds,
    nor a way down along such curvature from bounds that bind with multiplier 0.

    O(n^3) a round with "exact", two rounds a step; no matrix with "cg", at most 200 products a
    round. Where f is not smooth enough for second derivatives, LBFGSB does better.

    Args:
        subproblem: "exact": the Hessian (n, n) at each accepted point, its free rows and columns
            by Cholesky, or by `eigh` where they are indefinite. "cg": Steihaug's conjugate
            gradients on Hessian-vector products. None: "exact" up to 200 variables.
        tol: stopping tolerance, below which negative curvature is looked for; `solve` fills it in.

    Source: Lin & Moré (1999); several Cauchy steps at once in place of their searches.

    """

    subproblem: str | None = static(default=None)
    tol: ArrayLike | None = None

    def __post_init__(self):
        """Refuse unknown subproblem solvers."""
        if self.subproblem not in (None, "exact", "cg"):
            raise ValueError(
                f"TRON(subproblem=...) must be 'exact', 'cg' or None, but {self.subproblem!r} came."
            )

    def unrolls(self, size: int) -> bool:
        """No: the model's minimiser is searched for by loops."""
        return False

    def _exact(self, size: int) -> bool:
        return self.subproblem == "exact" or (self.subproblem is None and size <= EXACT_UP_TO)

    def _tol(self, like: Array) -> Array:
        tol = jnp.finfo(like.dtype).eps ** 0.5 if self.tol is None else self.tol
        return jnp.asarray(tol, like.dtype)

    def init(self, problem, point, args):
        """At the start, within the bounds, nothing evaluated."""
        return super().init(problem, Point(box_of(problem, args).nearest(point.x)), args)

    def start_model(self, x):
        """A zero Hessian, or nothing."""
        return jnp.zeros((x.shape[0], x.shape[0]), x.dtype) if self._exact(x.shape[0]) else ()

    def model(self, problem, x, args):
        """The Hessian, or nothing: products are taken where they are needed."""
        return problem.hessian(x, args) if self._exact(x.shape[0]) else ()

    def place(self, problem, x, step, args):
        """Within the bounds, and on one where the step ends there."""
        return box_of(problem, args).along(x, jnp.ones((), x.dtype), step)

    def left(self, problem, x, gradient, args):
        """The gradient without what the bounds hold."""
        prices = bound_prices(problem, x, gradient, args)
        return bound_residuals(problem, x, gradient, prices, args).stationarity

    def resize(self, size, ratio, finite, proposal):
        """As ever; a step may be longer than the radius, which bounds each of its parts."""
        length = jnp.minimum(proposal.length, size)
        return super().resize(size, ratio, finite, proposal._replace(length=length))

    def propose(self, problem, model, x, gradient, radius, args):
        """A nearly best step of the model within radius and bounds."""
        box = box_of(problem, args)
        exact, tol = self._exact(x.shape[0]), self._tol(x)
        if exact:
            finite = jnp.all(jnp.isfinite(model))
            hessian = jnp.where(finite, model, 0)
            products = lambda rows: rows @ hessian
            stiffness = jnp.max(jnp.abs(hessian))
        else:
            finite = jnp.array(True)
            products = jax.vmap(problem.hessian_product(x, args))
        path, bend = _cauchy(products, box, x, gradient, radius, LENGTHS if exact else FEW_LENGTHS)
        if not exact:
            stiffness = jnp.abs(bend)
        stiffness = jnp.where(stiffness > 0, stiffness, 1)
        probe = self.left(problem, x, gradient, args) <= tol

        def go_on(i: Array, path: Path) -> Path:
            y = box.along(x, jnp.ones((), x.dtype), path.step)
            force = gradient + path.image
            inside = (y > box.lower) & (y < box.upper)
            loose = ((y <= box.lower) & (force <= tol)) | ((y >= box.upper) & (force >= -tol))
            loose = loose & (box.lower < box.upper) & (i > 0)
            free = (inside | loose).astype(x.dtype)
            if exact:
                masked = free[:, None] * hessian * free + jnp.diag((1 - free) * stiffness)
                found = _newton(masked, free * force, radius)
            else:
                product = lambda v: (
                    free * products((free * v)[None])[0] + stiffness * (1 - free) * v
                )
                found = truncated_step(product, free * force, radius, probe)
            w = free * found.step
            parts = jnp.array(PARTS if exact else FEW_PARTS, x.dtype)
            rows = box.nearest(y + parts[:, None] * w) - y
            rows = jnp.concatenate([rows, (jnp.minimum(1, box.room(y, w)) * w)[None]])
            new, bent = _best(products, path, gradient, rows, stiffness)
            # Where free variables are on a bound, negative curvature need not be of use.
            settled = jnp.where(i == 0, found.settled, path.settled & (found.settled | ~bent))
            return new._replace(settled=settled)

        path = lax.fori_loop(0, ROUNDS, go_on, path)
        return Proposal(path.step, path.decrease, path.settled & finite, safe_norm(path.step))

    def report(self, problem, state, args):
        """The last accepted point, with the prices of its bounds."""
        report = super().report(problem, state, args)
        x, gradient = state.point.x, state.gradient
        prices = bound_prices(problem, x, gradient, args)
        residuals = bound_residuals(problem, x, gradient, prices, args)
        failure = crossed_or(problem, residuals, report.failure)
        return Report(Point(x, prices), state.value, residuals, report.settled, failure)


def _newton(hessian: Array, gradient: Array, radius: Array) -> Proposal:
    """A definite H's Newton step, cut off at the radius; else the model's minimiser, by `eigh`.

    From a Cauchy point, to be cut off is to be a dogleg: eigenvalues are for curvature that is
    negative. With `exact_step`, which takes eigenvalues for each short radius too, solves of 100
    and 300 variables took 20 to 60 times as long, in as many steps.
    """
    newton, definite = newton_step(hessian, gradient)
    # Ordered by data: see `exact_step`.
    other = choose(definite, jnp.eye(gradient.shape[0], dtype=gradient.dtype), hessian)

    def easy(_):
        part = jnp.minimum(1, radius / jnp.maximum(safe_norm(newton), jnp.finfo(radius.dtype).tiny))
        return Proposal(part * newton, jnp.zeros_like(radius), jnp.array(True))

    def hard(_):
        return spectral_step(spectrum(other), gradient, radius)

    return lax.cond(definite, easy, hard, None)


def _cauchy(products, box: Box, x, gradient, radius, lengths: tuple) -> tuple[Path, Array]:
    """The best of projected gradient steps P(x - t g) - x, and the curvature along the gradient."""
    held = ((x <= box.lower) & (gradient > 0)) | ((x >= box.upper) & (gradient < 0))
    pull = jnp.where(held | (box.lower == box.upper), 0, gradient)
    norm = safe_norm(pull)
    unit = pull / jnp.where(norm > 0, norm, 1)
    bend = unit @ products(unit[None])[0]
    far = radius / jnp.where(norm > 0, norm, 1)
    near = jnp.minimum(far, jnp.where(bend > 0, 1 / jnp.where(bend > 0, bend, 1), jnp.inf))
    t = near * jnp.array(lengths, x.dtype)
    rows = box.nearest(x - t[:, None] * gradient) - x
    size = jnp.linalg.norm(rows, axis=1)
    rows = rows * jnp.minimum(1, radius / jnp.where(size > 0, size, 1))[:, None]
    still = Path(jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(radius), jnp.array(False))
    return _best(products, still, gradient, rows, jnp.abs(bend))[0], bend


def _best(products, path: Path, gradient, rows, stiffness) -> tuple[Path, Array]:
    """The model's least value on the segments from a step by each of `rows`.

    Also whether the segment taken is one of negative curvature.
    """
    images = products(rows)
    slope, bend = rows @ (gradient + path.image), jnp.sum(rows * images, 1)
    t = jnp.where(bend > 0, -slope / jnp.where(bend > 0, bend, 1), 1)
    t = jnp.where(t > 0.999, 1, jnp.maximum(t, 0))  # 1 ends on a bound
    gain = -t * (slope + 0.5 * t * bend)
    gain = jnp.where(jnp.isfinite(gain), gain, -jnp.inf)
    k = jnp.argmax(gain)
    good = gain[k] > 0
    t = jnp.where(good, t[k], 0)
    flat = jnp.finfo(gradient.dtype).eps ** 0.5 * stiffness * (rows[k] @ rows[k])
    step = path.step + t * jnp.where(good, rows[k], 0)
    image = path.image + t * jnp.where(good, images[k], 0)
    new = Path(step, image, path.decrease + jnp.where(good, gain[k], 0), path.settled)
    return new, good & (bend[k] < -flat)
