"""Total variation of a signal or an image: what makes answers piecewise constant.

In one dimension the prox is exact. Let D_i(s) be the derivative at x_i = s of the best objective
with entry i held at s. It increases, and p_i is its root. For one level s everywhere, D comes from
two passes of clipped sums; which entries lie above the level, and which below, is then known.

    one segment -> its mean -> D -> split where the sign of D changes -> ... -> no split: the mean

A segment that is not constant has entries above and below its mean, so the rounds end. Between the
parts of a split the sign of the jump is known: there the passes start anew, all at once.
Sources: Johnson (2013) for the passes; Hochbaum (2001) for the levels; Condat (2013).
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import conjugate_gradient, static
from .arguments import above, array, at_least_everywhere, nan_unless, parameter, slack, within
from .norms import infinite_unless
from .polyhedra import ROWS
from .proximable import Proximable, proximable


@proximable
class TotalVariation(Proximable):
    """sum_i w_i |x_{i+1} - x_i| of a signal (n,): the fused lasso, denoising by pieces.

    prox is exact to rounding, O(n) in a round, of which 1 to 18 were needed for 10,000 entries;
    sqrt(n) operations deep, so that batches and accelerators are used well. f* is the indicator of
    |y_1 + ... + y_i| <= w_i, and sum(y) = 0.

    Derivative: with the segments and the signs of the jumps held fixed, p is the mean of x over
    each segment, plus t times the difference of the signed weights at its ends over its length.
    Source: Rudin, Osher & Fatemi (1992); Tibshirani et al. (2005).

    Args:
        weight: w >= 0, a number or (n - 1,).

    """

    weight: ArrayLike = 1.0

    def __post_init__(self):
        """Refuse negative weights."""
        at_least_everywhere("TotalVariation(weight=...)", self.weight, 0.0)

    def value(self, x):
        """sum_i w_i |x_{i+1} - x_i|."""
        x, weight = self._matched(x)
        return jnp.sum(weight * jnp.abs(jnp.diff(x)))

    def prox(self, x, step=1.0):
        """The signal without jumps that cost more than they fit."""
        x, weight = self._matched(x)
        return _denoised(x, jnp.asarray(step, x.dtype) * weight)

    def conjugate_value(self, y):
        """0 where |y_1 + ... + y_i| <= w_i and sum(y) = 0, to rounding, else infinite."""
        y, weight = self._matched(y)
        sums = jnp.cumsum(y)
        balanced = jnp.abs(sums[-1]) <= slack(y.dtype) * jnp.max(jnp.abs(sums))
        inside = jnp.all(within(jnp.abs(sums[:-1]), weight)) & balanced
        return infinite_unless(inside, sums[-1] + jnp.sum(weight))

    def nearest_subgradient(self, x, v):
        """The jumps pull by their weights; flat parts as near to v as theirs allow."""
        x, weight = self._matched(x)
        v = jnp.asarray(v, x.dtype)
        sign = jnp.sign(jnp.diff(x))
        # v less its projection on the tangent directions, the prox of f'(x; .).
        pull = _differences_transposed(weight * sign)
        return v - _denoised(v - pull, jnp.where(sign == 0, weight, 0))

    def _matched(self, x):
        x = array("`x`", x, 1, ROWS)
        weight = parameter("`weight`", self.weight, x.dtype, (x.size - 1,))
        return x, nan_unless(above(0.0), weight)


def _differences_transposed(u: Array) -> Array:
    """D'u for D x = diff(x)."""
    return jnp.pad(u, (1, 0)) - jnp.pad(u, (0, 1))


@jax.jit
def _denoised(x: Array, weight: Array) -> Array:
    """Argmin ||p - x||^2 / 2 + sum weight |diff p|, by the means of its segments."""
    if x.size == 1:
        return x
    jumps = _jumps(*lax.stop_gradient((x, weight)))
    return jnp.where(jnp.any(jnp.isnan(weight)), jnp.nan, _levels(x, weight, jumps))


def _means(values: Array, jumps: Array) -> Array:
    """Each entry replaced by the mean over its segment; these end where `jumps` is not 0."""
    n = values.size
    segment = jnp.cumsum(jnp.pad(jnp.where(jumps != 0, 1, 0), (1, 0)))

    def summed(leaf):
        return jax.ops.segment_sum(leaf, segment, num_segments=n, indices_are_sorted=True)

    return (summed(values) / jnp.maximum(summed(jnp.ones_like(values)), 1))[segment]


def _pulled(x: Array, weight: Array, jumps: Array) -> Array:
    """X less the signed weights of its jumps: on each segment, p is the mean of it."""
    return x - _differences_transposed(jnp.where(jumps == 0, 0, weight * jumps))


def _levels(x: Array, weight: Array, jumps: Array) -> Array:
    """The value of each entry if p jumps where `jumps` is not 0, in its sign."""
    middle = lax.stop_gradient(jnp.mean(x))
    pulled = _pulled(x - middle, weight, jumps)
    level = _means(pulled, jumps)
    return middle + level + _means(pulled - level, jumps)  # refined: long sums are rounded


def _jumps(x: Array, weight: Array) -> Array:
    """The sign of p_{i+1} - p_i, (n - 1,)."""
    start = (weight == 0).astype(x.dtype)  # an edge without weight joins nothing
    x = x - jnp.mean(x)
    # No message is larger than all of x away from its mean: infinite weights become finite.
    weight = jnp.minimum(weight, jnp.sum(jnp.abs(x)))
    most = jnp.max(weight)
    # Of D, measured where it is 0: 1 to 15 eps (max |x| + w) for 100 to 10,000 entries.
    rounding = (8 + x.size**0.5) * jnp.finfo(x.dtype).eps * (jnp.max(jnp.abs(x)) + most)

    def split(carry):
        jumps, _, rounds = carry
        pulled = _pulled(x, weight, jumps)
        gap = _means(pulled, jumps) - pulled
        gap = gap - _means(gap, jumps)  # adds up to 0 over each segment
        pull = _pull(gap, weight, jumps, most)
        side = jnp.where(jnp.abs(pull) > rounding, -jnp.sign(pull), 0)
        new = jnp.where(jumps == 0, jnp.sign(jnp.diff(side)), jumps)
        return new, jnp.any(new != jumps), rounds + 1

    going = lambda carry: carry[1] & (carry[2] <= x.size)
    return lax.while_loop(going, split, (start, True, 0))[0]


def _pull(gap: Array, weight: Array, jumps: Array, most: Array) -> Array:
    """D at the present level of each segment: the gap, and what comes over from both sides.

    A message is clipped to the weight of its edge; the one over a jump is in the gap already.
    """
    reach = jnp.where(jumps == 0, weight, 0)
    ways = jnp.stack([gap[:-1], gap[:0:-1]]), jnp.stack([reach, reach[::-1]])
    from_left, from_right = _messages(*ways, most)
    return gap + jnp.pad(from_left, (1, 0)) + jnp.pad(from_right[::-1], (0, 1))


def _messages(gap: Array, reach: Array, most: Array) -> Array:
    """m_i = clip(m_{i-1} + gap_i, -reach_i, reach_i), m_{-1} = 0, over the last axis of (2, n).

    The maps m -> clip(m + a, low, high) are closed under composition. So n entries are sqrt(n)
    blocks side by side, composed entry by entry; then one message goes through the blocks. Where
    |a| > 2 `most` a map is constant: cut off there, sums do not round at sizes that play no part.
    """
    ways, n = gap.shape
    blocks = math.isqrt(n - 1) + 1
    length = -(-n // blocks)

    def split(leaf):  # (length, ways, blocks)
        padded = jnp.pad(leaf, ((0, 0), (0, blocks * length - n)))
        return jnp.moveaxis(padded.reshape(ways, blocks, length), 2, 0)

    def compose(first, entry):
        (a, low, high), (gap, reach) = first, entry
        a = jnp.clip(a + gap, -2 * most, 2 * most)
        low, high = jnp.clip(low + gap, -reach, reach), jnp.clip(high + gap, -reach, reach)
        return (a, low, high), (a, low, high)

    def through(message, block):
        a, low, high = block
        return jnp.clip(message + a, low, high), message

    zero = jnp.zeros((ways, blocks), gap.dtype)
    start = (zero, zero - jnp.inf, zero + jnp.inf)
    whole, parts = lax.scan(compose, start, (split(gap), split(reach)))
    across = jax.tree.map(lambda leaf: leaf.T, whole)
    _, arriving = lax.scan(through, jnp.zeros(ways, gap.dtype), across)
    a, low, high = parts
    messages = jnp.clip(arriving.T + a, low, high)
    return jnp.moveaxis(messages, 0, 2).reshape(ways, blocks * length)[:, :n]


@proximable
class TotalVariation2D(Proximable):
    """w sum_ij ||(x_{i+1,j} - x_ij, x_{i,j+1} - x_ij)|| of an image (m, n), 0 over its rim.

    The norm is the Euclidean one (isotropic), or the l1 norm: then edges follow the axes.

    prox by FISTA with restarts on the dual, p = x - D'u with |u_ij| <= t w, until the duality gap
    proves ||p - p*||_2 <= tol ||x - mean(x)||_2; after `max_steps` steps p is what there is.
    O(m n) a step, 50 to 5,000 steps, more for larger t w. Subgradients take jumps below that
    error for flat.

    Derivative: implicit, first order; flat parts stay flat, and at jumps the curvature of the norm
    counts. By conjugate gradients on the dual system; |u_ij| within sqrt(eps) of t w is equal.
    Sources: Beck & Teboulle (2009), "Fast gradient-based algorithms for constrained total
    variation"; O'Donoghue & Candes (2015) for restarts.

    Args:
        weight: w >= 0, a number.
        tol: of the error; None: eps^(1/3), 6e-6 in float64. Inside a solver it bounds what that can
            reach, and must be well below its tolerance: 1e-10.
        isotropic: the Euclidean norm of each pair.
        max_steps: of FISTA.

    """

    weight: ArrayLike = 1.0
    tol: ArrayLike | None = None
    isotropic: bool = static(default=True)
    max_steps: int = static(default=5000)

    def __post_init__(self):
        """Refuse negative weights."""
        at_least_everywhere("TotalVariation2D(weight=...)", self.weight, 0.0)

    def value(self, x):
        """The weight times the sum of the norms of all pairs of differences."""
        x, weight, _ = self._matched(x)
        return weight * jnp.sum(_lengths(_slopes(x), self.isotropic))

    def prox(self, x, step=1.0):
        """The image without the edges that cost more than they fit."""
        x, weight, tol = self._matched(x)
        limits = jnp.full_like(x, 1) * (jnp.asarray(step, x.dtype) * weight)
        return _image(self.isotropic, self.max_steps, x, limits, tol)

    def nearest_subgradient(self, x, v):
        """The edges pull by the weight; flat parts as near to v as theirs allows, to `tol`."""
        x, weight, tol = self._matched(x)
        v = jnp.asarray(v, x.dtype)
        slopes = _slopes(x)
        scale = _lengths(slopes, self.isotropic, keep=True)
        flat = scale <= tol * jnp.linalg.norm(x - jnp.mean(x))
        pull = _transposed(jnp.where(flat, 0, weight * slopes / jnp.where(flat, 1, scale)))
        limits = jnp.where(flat, weight, 0)
        return v - _image(self.isotropic, self.max_steps, v - pull, limits, tol)

    def _matched(self, x):
        x = array("`x`", x, 2, "For many images use `jax.vmap`.")
        weight = nan_unless(above(0.0), parameter("`weight`", self.weight, x.dtype, ()))
        eps = float(jnp.finfo(x.dtype).eps)
        tol = parameter("`tol`", eps ** (1 / 3) if self.tol is None else self.tol, x.dtype, ())
        return x, weight, tol


def _slopes(x: Array) -> Array:
    """(2, m, n): differences down and to the right, 0 at the rim."""
    down = jnp.pad(jnp.diff(x, axis=0), ((0, 1), (0, 0)))
    return jnp.stack([down, jnp.pad(jnp.diff(x, axis=1), ((0, 0), (0, 1)))])


def _transposed(u: Array) -> Array:
    """The transpose of `_slopes`."""
    down, right = u[0, :-1], u[1, :, :-1]
    rows = jnp.pad(down, ((1, 0), (0, 0))) - jnp.pad(down, ((0, 1), (0, 0)))
    return rows + jnp.pad(right, ((0, 0), (1, 0))) - jnp.pad(right, ((0, 0), (0, 1)))


def _lengths(u: Array, isotropic: bool, keep: bool = False) -> Array:
    """The norm of each pair, (m, n); `keep`: what each entry is measured by, (2, m, n)."""
    if not isotropic:
        return jnp.abs(u) if keep else jnp.sum(jnp.abs(u), axis=0)
    squares = jnp.sum(u**2, axis=0)
    some = squares > 0
    lengths = jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), 0)
    return jnp.broadcast_to(lengths, u.shape) if keep else lengths


class _Dual(NamedTuple):
    """FISTA on min ||x - D'u||^2 / 2, |u| <= limits."""

    u: Array  # (2, m, n)
    ahead: Array  # where the next gradient is taken
    momentum: Array
    gap: Array  # of duality
    steps: Array


def _dual(isotropic: bool, max_steps: int, x: Array, limits: Array, tol: Array) -> Array:
    """The u, (2, m, n), of p = x - D'u."""
    middle = jnp.mean(x)
    x = x - middle
    target = 0.5 * (tol * jnp.linalg.norm(x)) ** 2  # the dual is 1-strongly concave in D'u
    limits = jnp.broadcast_to(limits, (2, *x.shape))

    def clipped(u):
        lengths = _lengths(u, isotropic, keep=True)
        over = lengths > limits
        return jnp.where(over, u * limits / jnp.where(over, lengths, 1), u)

    def advance(c: _Dual) -> _Dual:
        new = clipped(c.ahead + _slopes(x - _transposed(c.ahead)) / 8)  # ||D||^2 <= 8
        # Momentum that points uphill is dropped.
        up = jnp.sum((c.ahead - new) * (new - c.u)) > 0
        following = 0.5 * (1 + jnp.sqrt(1 + 4 * c.momentum**2))
        beta = jnp.where(up, 0, (c.momentum - 1) / following)
        slopes = _slopes(x - _transposed(new))
        # |q| limits - <q, u> for each pair, none of them negative
        each = jnp.abs(slopes) * limits if not isotropic else _lengths(slopes, True) * limits[0]
        gap = jnp.sum(each) - jnp.sum(slopes * new)
        following = jnp.where(up, 1, following)
        return _Dual(new, new + beta * (new - c.u), following, gap, c.steps + 1)

    zero, one = jnp.zeros_like(limits), jnp.ones_like(target)
    going = lambda c: ~(c.gap <= target) & (c.steps < max_steps) & ~jnp.isnan(c.gap)
    start = _Dual(zero, zero, one, jnp.full_like(one, jnp.inf), jnp.zeros((), jnp.int32))
    return lax.while_loop(going, advance, start).u


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _image(isotropic: bool, max_steps: int, x: Array, limits: Array, tol: Array) -> Array:
    return x - _transposed(_dual(isotropic, max_steps, x, limits, tol))


@_image.defjvp
def _image_jvp(isotropic, max_steps, primals, tangents):
    """From p + D'u = x and u = limits q / |q|, q = D p, where the pair is not flat.

    With d = q / |q| and v = du - d dlimits, orthogonal to d: (|q| / limits) v + D D'v = D(dx - D'd
    dlimits) on what v may be; flat pairs have |q| = 0 and any v.
    """
    x, limits, _ = primals
    u = _dual(isotropic, max_steps, *primals)
    p = x - _transposed(u)
    wide = jnp.broadcast_to(limits, u.shape)
    lengths = _lengths(u, isotropic, keep=True)
    eps = float(jnp.finfo(x.dtype).eps)
    edge = (lengths >= (1 - eps**0.5) * wide) & (lengths > 0)
    d = jnp.where(edge, u / jnp.where(edge, lengths, 1), 0)
    none = wide <= 0  # no force at all
    slopes = _lengths(_slopes(p), isotropic, keep=True)
    bend = jnp.where(edge, slopes / jnp.where(none, 1, wide), 0)

    def free(v):
        inner = jnp.sum(d * v, axis=0) * d if isotropic else jnp.where(edge, v, 0)
        return jnp.where(none, 0, v - inner)

    def product(v):
        v = free(v.reshape(u.shape))
        return free(bend * v + _slopes(_transposed(v))).reshape(-1)

    moved = tangents[0] - _transposed(d * tangents[1])

    def solve(matvec, b):
        return conjugate_gradient(matvec, b, eps**0.75, 2000).x

    right = free(_slopes(moved)).reshape(-1)
    v = lax.custom_linear_solve(product, right, solve, symmetric=True)
    return p, moved - _transposed(free(v.reshape(u.shape)))
