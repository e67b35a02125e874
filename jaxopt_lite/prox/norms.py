"""Norms and sums of norms: what makes whole groups, rows or singular values vanish.

`conjugate_value` is infinite beyond w (1 + eps^(3/5)): rounding is no reason to be so.
Moreau's identity: the prox of t w ||.|| is x minus the projection on the ball, of radius t w, of
the dual norm. So it is a projection of `projections`, with the derivative of that.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import safe_norm
from . import cones, polyhedra
from .arguments import (
    PyTree,
    above,
    array,
    at_least_everywhere,
    flat,
    is_number,
    known,
    nan_unless,
    parameter,
    tree,
    within,
)
from .proximable import Proximable, proximable
from .separable import soft_threshold

MATRIX = "For many matrices use `jax.vmap`."


def infinite_unless(inside: Array, like: Array) -> Array:
    """0 inside, else infinite; NaN where `like` is."""
    return jnp.where(inside, 0, jnp.where(jnp.isnan(like), jnp.nan, jnp.inf)).astype(like.dtype)


def weight_of(function: Proximable, dtype, shape: tuple[int, ...] = ()) -> Array:
    """Its weight as an array; NaN where it is traced and negative."""
    weight = parameter("`weight`", function.weight, dtype, shape)  # type: ignore[attr-defined]
    return nan_unless(above(0.0), weight)


class Weighted(Proximable):
    """A weight times a norm, of any pytree."""

    def __post_init__(self):
        """Refuse a negative weight."""
        at_least_everywhere(f"{type(self).__name__}(weight=...)", self.weight, 0.0)  # type: ignore[attr-defined]


@proximable
class L2(Weighted):
    """w ||x||_2, not squared: all of x is zero, or nothing.

    prox(x, t) = x - P(x), P the projection on the ball of radius t w: max(1 - t w / ||x||, 0) x,
    block soft thresholding. f* is the indicator of ||y||_2 <= w. O(n). The derivative is 0 in the
    closed ball, 0 included. Source: Parikh & Boyd (2014), section 6.5.1.

    Args:
        weight: w >= 0, a number.

    """

    weight: ArrayLike = 1.0

    def value(self, x):
        """W ||x||_2."""
        form, vector = flat(tree("`x`", x))
        return weight_of(self, form.dtype) * norm(vector)

    def prox(self, x, step=1.0):
        """Block soft thresholding by step * weight."""
        form, vector = flat(tree("`x`", x))
        radius = jnp.asarray(step, form.dtype) * weight_of(self, form.dtype)
        return form.unravel(vector - cones.l2_ball(vector, radius))

    def conjugate_value(self, y):
        """0 where ||y||_2 <= w, else infinite."""
        form, vector = flat(tree("`y`", y))
        length, weight = norm(vector), weight_of(self, form.dtype)
        return infinite_unless(within(length, weight), length + weight)

    def nearest_subgradient(self, x, v):
        """W x / ||x||; at 0 the projection of v on the ball of radius w."""
        form, vector = flat(tree("`x`", x))
        weight, length = weight_of(self, form.dtype), norm(vector)
        at_zero = cones.l2_ball(form.ravel(v), weight)
        return form.unravel(
            jnp.where(length > 0, weight * (vector / jnp.where(length > 0, length, 1)), at_zero)
        )


def norm(v: Array) -> Array:
    """||v||_2 without overflow; the derivative at 0 is 0."""
    longest = lax.stop_gradient(jnp.max(jnp.abs(v)))
    scale = jnp.where((longest > 0) & (longest < jnp.inf), longest, 1)
    return scale * safe_norm(v / scale)


@proximable
class Linf(Weighted):
    """w max_i |x_i|: the largest entries are cut down to one size.

    prox(x, t) = x - P(x), P the projection on the l1 ball of radius t w; f* is the indicator of
    ||y||_1 <= w. O(n log n). Source: Parikh & Boyd (2014), section 6.5.2.

    Args:
        weight: w >= 0, a number.

    """

    weight: ArrayLike = 1.0

    def value(self, x):
        """W max_i |x_i|."""
        form, vector = flat(tree("`x`", x))
        return weight_of(self, form.dtype) * jnp.max(jnp.abs(vector))

    def prox(self, x, step=1.0):
        """`x` clipped to [-s, s], where what is cut off adds up to step * weight, or 0."""
        form, vector = flat(tree("`x`", x))
        radius = jnp.asarray(step, form.dtype) * weight_of(self, form.dtype)
        return form.unravel(_clipped(vector, radius))

    def conjugate_value(self, y):
        """0 where ||y||_1 <= w, else infinite."""
        form, vector = flat(tree("`y`", y))
        length, weight = jnp.sum(jnp.abs(vector)), weight_of(self, form.dtype)
        return infinite_unless(within(length, weight), length + weight)

    def nearest_subgradient(self, x, v):
        """W times a mean of the signs at the largest entries; at 0, |g|_1 <= w."""
        form, vector = flat(tree("`x`", x))
        return form.unravel(_max_subgradient(vector, form.ravel(v), weight_of(self, form.dtype)))


def _clipped(x: Array, radius: Array) -> Array:
    """X less its projection on the l1 ball; entries that are cut have exactly one size."""
    cut = polyhedra.l1_ball(x, radius)
    p = x - cut
    size = lax.stop_gradient(jnp.min(jnp.abs(p), where=cut != 0, initial=jnp.inf))
    exact = jnp.where((cut != 0) & (size < jnp.inf), jnp.sign(x) * size, p)
    return p + lax.stop_gradient(exact - p)


def _max_subgradient(x: Array, v: Array, weight: Array) -> Array:
    """The nearest to v of the subdifferential of weight * max |x|."""
    size, sign = jnp.max(jnp.abs(x)), jnp.sign(x)
    largest = jnp.abs(x) >= size * (1 - 4 * jnp.finfo(x.dtype).eps)
    # What is not largest is so far below that the simplex does not reach it.
    most = jnp.max(sign * v, where=largest, initial=-jnp.inf)
    at = jnp.where(largest, sign * v, most - 2 * weight - 1)
    return jnp.where(size > 0, sign * polyhedra.simplex(at, weight), polyhedra.l1_ball(v, weight))


@proximable
class L1Linf(Weighted):
    """sum_i w_i max_j |x_ij| over the rows of a matrix: rows vanish together.

    prox clips each row as `Linf` does; f* is the indicator of sum_j |y_ij| <= w_i. O(n log n).
    Source: Quattoni et al. (2009).

    Args:
        weight: w >= 0, a number or one for each row.

    """

    weight: ArrayLike = 1.0

    def value(self, x):
        """sum_i w_i max_j |x_ij|."""
        x, weight = self._rows(x)
        return jnp.sum(weight * jnp.max(jnp.abs(x), axis=1))

    def prox(self, x, step=1.0):
        """Each row clipped."""
        x, weight = self._rows(x)
        return jax.vmap(_clipped)(x, jnp.asarray(step, x.dtype) * weight)

    def conjugate_value(self, y):
        """0 where sum_j |y_ij| <= w_i for all rows, else infinite."""
        y, weight = self._rows(y)
        lengths = jnp.sum(jnp.abs(y), axis=1)
        return infinite_unless(jnp.all(within(lengths, weight)), jnp.sum(lengths + weight))

    def nearest_subgradient(self, x, v):
        """Row by row."""
        x, weight = self._rows(x)
        return jax.vmap(_max_subgradient)(x, jnp.asarray(v, x.dtype), weight)

    def _rows(self, x):
        x = array("`x`", x, 2, MATRIX)
        return x, weight_of(self, x.dtype, x.shape[:1])


@proximable
class GroupLasso(Proximable):
    """sum_g w_g ||x_g||_2 over groups of entries that do not overlap: groups vanish together.

    prox(x, t) scales each group by max(1 - t w_g / ||x_g||, 0); f* is the indicator of ||y_g|| <=
    w_g. O(n). The derivative of a group that is set to 0 is 0, at x = 0 too. For groups that share
    entries see `overlapping_groups`. Source: Yuan & Lin (2006), whose w_g is sqrt(size of g).

    Args:
        groups: the number of its group for each entry, integers from 0 below the size of x, shaped
            like x (a pytree like it, if x is one).
        weight: w >= 0, a number or one for each group.

    """

    groups: PyTree
    weight: ArrayLike = 1.0

    def __post_init__(self):
        """Refuse negative weights, and labels that are none."""
        at_least_everywhere("GroupLasso(weight=...)", self.weight, 0.0)
        at_least_everywhere("GroupLasso(groups=...)", self.groups, 0)
        for leaf in jax.tree.leaves(self.groups):
            if is_number(leaf) and not jnp.issubdtype(jnp.result_type(leaf), jnp.integer):
                raise TypeError(
                    "GroupLasso(groups=...) must hold integers, the number of its group for each "
                    f"entry of x, but it is {jnp.result_type(leaf)}. Use `labels.astype(int)`."
                )

    def value(self, x):
        """sum_g w_g ||x_g||_2."""
        _, vector, labels, weight = self._matched("`x`", x)
        return jnp.sum(weight * _group_norms(vector, labels))

    def prox(self, x, step=1.0):
        """Block soft thresholding of each group by step * w_g."""
        form, vector, labels, weight = self._matched("`x`", x)
        threshold = jnp.asarray(step, form.dtype) * weight
        lengths = _group_norms(vector, labels)
        zero = (lengths <= threshold) & (threshold > 0)
        factor = 1 - threshold / jnp.where(lengths > 0, lengths, 1)
        return form.unravel(jnp.where(zero, 0, factor)[labels] * vector)

    def conjugate_value(self, y):
        """0 where ||y_g|| <= w_g for all groups, else infinite."""
        _, vector, labels, weight = self._matched("`y`", y)
        lengths = _group_norms(vector, labels)
        return infinite_unless(jnp.all(within(lengths, weight)), jnp.sum(lengths + weight))

    def nearest_subgradient(self, x, v):
        """w_g x_g / ||x_g||; where x_g = 0, v_g projected on the ball of radius w_g."""
        form, x, labels, weight = self._matched("`x`", x)
        v = form.ravel(v)
        lengths, reach = _group_norms(x, labels), _group_norms(v, labels)
        at_zero = jnp.minimum(1, weight / jnp.where(reach > 0, reach, 1))
        slope = weight / jnp.where(lengths > 0, lengths, 1)
        return form.unravel(
            jnp.where((lengths > 0)[labels], slope[labels] * x, at_zero[labels] * v)
        )

    def _matched(self, name, x):
        """The form and vector of x, its labels, and a weight for each group there may be."""
        form, vector = flat(tree(name, x))
        leaves = jax.tree.leaves(self.groups)
        shapes = tuple(jnp.shape(leaf) for leaf in leaves)
        if shapes != form.shapes:
            raise ValueError(
                f"`groups` must have a label for each entry of {name}, of shapes {form.shapes}, "
                f"but its shapes are {shapes}."
            )
        labels = jnp.concatenate([jnp.ravel(jnp.asarray(leaf)) for leaf in leaves])
        count = jnp.size(self.weight) if jnp.ndim(self.weight) else form.size
        if known(labels) and int(jnp.max(labels)) >= count:
            raise ValueError(
                f"`groups` must hold integers below {count}, one `weight` for each group, but "
                f"{int(jnp.max(labels))} came. Number the groups 0, 1, 2, ..."
            )
        weight = weight_of(self, form.dtype, (count,))[: form.size]
        return form, vector, labels, jnp.pad(weight, (0, form.size - weight.size))


def _group_norms(x: Array, labels: Array) -> Array:
    """||x_g|| for labels up to the size of x; the derivative of a norm of 0 is 0."""
    longest = lax.stop_gradient(jnp.max(jnp.abs(x)))
    scale = jnp.where((longest > 0) & (longest < jnp.inf), longest, 1)
    squares = jax.ops.segment_sum((x / scale) ** 2, labels, num_segments=x.size)
    some = squares > 0
    return scale * jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), squares)


@proximable
class Nuclear(Weighted):
    """w times the sum of the singular values of a matrix (m, n): what makes it of low rank.

    prox(x, t) = U max(S - t w, 0) V', singular value thresholding; f* is the indicator of a
    spectral norm <= w. One SVD, O(m n min(m, n)).

    The derivative is right for singular values that are equal or 0, too: it goes by (h(s_i) -+
    h(s_j)) / (s_i -+ s_j), h the soft threshold. Second derivatives are right where all singular
    values differ. Sources: Cai, Candes & Shen (2010), theorem 2.1; Deledalle et al. (2013).

    Args:
        weight: w >= 0, a number.

    """

    weight: ArrayLike = 1.0

    def value(self, x):
        """W sum_i s_i."""
        x = array("`x`", x, 2, MATRIX)
        return weight_of(self, x.dtype) * jnp.sum(jnp.linalg.svd(x, compute_uv=False))

    def prox(self, x, step=1.0):
        """The singular values soft thresholded by step * weight."""
        x = array("`x`", x, 2, MATRIX)
        threshold = jnp.asarray(step, x.dtype) * weight_of(self, x.dtype)
        return _thresholded(x, threshold)

    def conjugate_value(self, y):
        """0 where all singular values are <= w, else infinite."""
        y = array("`y`", y, 2, MATRIX)
        largest = jnp.max(jnp.linalg.svd(y, compute_uv=False))
        weight = weight_of(self, y.dtype)
        return infinite_unless(within(largest, weight), largest + weight)

    def nearest_subgradient(self, x, v):
        """W U V' + what of v is orthogonal to both spaces of x, its singular values cut to w."""
        x = array("`x`", x, 2, MATRIX)
        weight, v = weight_of(self, x.dtype), jnp.asarray(v, x.dtype)
        U, s, Vt = jnp.linalg.svd(x, full_matrices=False)
        U = jnp.where(s > max(x.shape) * jnp.finfo(x.dtype).eps * s[0], U, 0)
        rest = v - U @ (U.T @ v)
        Vt = jnp.where(jnp.any(U != 0, axis=0)[:, None], Vt, 0)
        rest = rest - (rest @ Vt.T) @ Vt
        return weight * (U @ Vt) + rest - _thresholded(rest, weight)


def _thresholded(x: Array, threshold: Array) -> Array:
    """U max(S - threshold, 0) V'."""
    return _tall(x, threshold) if x.shape[0] >= x.shape[1] else _tall(x.T, threshold).T


@jax.custom_jvp
def _tall(x: Array, threshold: Array) -> Array:
    U, s, Vt = _svd(x)
    return (U * soft_threshold(s, threshold)) @ Vt


def _svd(x: Array) -> tuple[Array, Array, Array]:
    """The thin SVD of a tall matrix; NaN where x is not finite, and of a threshold that is NaN."""
    finite = jnp.all(jnp.isfinite(x))
    U, s, Vt = jnp.linalg.svd(jnp.where(finite, x, 0), full_matrices=False)
    return U, jnp.where(finite, s, jnp.nan), Vt


@_tall.defjvp
def _tall_jvp(primals, tangents):
    """In the frame of U and V: what is symmetric of dX by differences, what is not by sums."""
    x, threshold = primals
    U, s, Vt = _svd(x)
    h = soft_threshold(s, threshold)
    kept = ((s > threshold) | (threshold == 0)).astype(x.dtype)
    inner = U.T @ tangents[0] @ Vt.T
    even, odd = 0.5 * (inner + inner.T), 0.5 * (inner - inner.T)
    minus, plus = s[:, None] - s, s[:, None] + s
    same = (minus == 0) | (kept[:, None] == kept)
    differences = jnp.where(same, kept[:, None], (h[:, None] - h) / jnp.where(same, 1, minus))
    none = plus == 0  # the slope of h at 0
    sums = jnp.where(none, kept[:, None], (h[:, None] + h) / jnp.where(none, 1, plus))
    ratio = jnp.where(s == 0, kept, h / jnp.where(s == 0, 1, s))
    beyond = tangents[0] @ Vt.T - U @ inner  # out of the range of X
    moved = U @ (differences * even + sums * odd - jnp.diag(kept * tangents[1]))
    return (U * h) @ Vt, (moved + beyond * ratio) @ Vt
