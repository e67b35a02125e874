"""Curvature as a preconditioner for gradients: Kronecker factors of dense layers, and diagonals.

Both are optax transformations that turn a gradient into an ascent direction in the metric of the
curvature; put `optax.scale(-rate)` behind them, and momentum or clipping where it is wanted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import Form, choose
from .operators import _form, hessian

PyTree = Any


class Layer(NamedTuple):
    """Kronecker factors of one dense layer: its block of the Gauss-Newton matrix is about A x G.

    `inputs` A (p, p) is the mean of a a', a the input with a 1 for the bias, if it has one;
    `outputs` G (q, q) the mean of J'Q J, J the derivative of the model in the layer's output.
    `weight` and `bias` say which leaves of the parameters they belong to; -1 for no bias.
    """

    inputs: Array
    outputs: Array
    weight: Array
    bias: Array


def dense(layer: PyTree, x: Array) -> Array:
    """A dense layer, x @ w + b: `layer` is w (p, q), (w, b) or {"w": w, "b": b}."""
    w, b = _parts(layer)
    return x @ w if b is None else x @ w + b


def kronecker_factors(
    model: Callable[..., Array], loss: Callable[..., Array], x: PyTree, data: PyTree
) -> list[Layer]:
    """Kronecker factors of the dense layers of `model(x, rows, dense)`, in order of their use.

    The model applies its layers by the function `dense` it is given, `dense(layer, inputs)` for
    `curvature.dense`, with parts of its own x as layers; inputs are (rows, p). `loss(outputs,
    rows)` is a mean over rows. Exact for one linear layer with squared loss; otherwise it takes
    inputs and derivatives for independent, and layers for uncoupled. Cost: as many gradients as
    the model has outputs for each row. Source: Martens & Grosse (2015), section 3; the Fisher
    matrix is taken exactly, through a root of the loss's Hessian, where they sample.
    """
    x = jax.tree.map(jnp.asarray, x)
    form, leaves = _form(x), jax.tree.leaves(x)
    shapes: list[Any] = []

    def run(x: PyTree, taps: list | None) -> tuple[Array, list, list]:
        inputs, places = [], []
        own = jax.tree.leaves(x)

        def tapped(layer: PyTree, h: Array) -> Array:
            w, b = _parts(layer)
            places.append((_find(own, w), -1 if b is None else _find(own, b)))
            if h.ndim != 2:
                raise ValueError(f"Inputs of dense layers must be (rows, p), but are {h.shape}.")
            inputs.append(h if b is None else jnp.pad(h, ((0, 0), (0, 1)), constant_values=1))
            out = dense(layer, h)
            if taps is None:
                shapes.append(jax.ShapeDtypeStruct(out.shape, out.dtype))
                return out
            return out + taps[len(inputs) - 1]

        return model(x, data, tapped), inputs, places

    jax.eval_shape(lambda x: run(x, None)[0], jax.tree.unflatten(form.treedef, leaves))
    if not shapes:
        raise ValueError(
            "The model used no dense layer: it must call the function `dense` that is its third "
            "argument, `h = dense(params['first'], h)`."
        )
    taps = [jnp.zeros(s.shape, s.dtype) for s in shapes]
    places: list = []

    def outputs(taps: list) -> tuple[Array, list]:
        z, inputs, found = run(x, taps)
        places[:] = found
        return z, inputs

    z, pull, inputs = jax.vjp(outputs, taps, has_aux=True)
    n = z.shape[0]
    roots = _roots(loss, z, data)  # (n, c, c): Q_i = R_i R_i'

    def one(column: Array) -> list:
        return [g.T @ g / n for g in pull(column)[0]]

    columns = jnp.moveaxis(roots, -1, 0)
    totals = [jnp.sum(part, axis=0) for part in lax.map(one, columns)]
    return [
        Layer(a.T @ a / n, g, jnp.int32(w), jnp.int32(b))
        for a, g, (w, b) in zip(inputs, totals, places, strict=True)
    ]


def _roots(loss: Callable, z: Array, data: PyTree) -> Array:
    """Symmetric roots of the loss's Hessian in the outputs of each row: (n, c, c)."""

    def of_row(z: Array, row: PyTree) -> Array:
        single = lambda z: loss(z[None], jax.tree.map(lambda leaf: leaf[None], row))
        return jax.hessian(single)(z)

    values, vectors = jnp.linalg.eigh(jax.vmap(of_row)(z, data))
    return vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]


def _parts(layer: PyTree) -> tuple[Array, Array | None]:
    if isinstance(layer, dict):
        return layer["w"], layer.get("b")
    return (layer[0], layer[1]) if isinstance(layer, (tuple, list)) else (layer, None)


def _find(leaves: list, leaf: Any) -> int:
    """Which of `leaves` this is, by identity: a layer must be a part of x as it stands."""
    for place, own in enumerate(leaves):
        if own is leaf:
            return place
    raise ValueError(
        "The weights of a dense layer must be leaves of x as they are, not computed from them: "
        "`dense(params['first'], h)`."
    )


def damped_inverses(layer: Layer, damping: ArrayLike) -> tuple[Array, Array]:
    """(A + pi sqrt(d) I)^-1 and (G + sqrt(d) / pi I)^-1, pi^2 = (tr A / p) / (tr G / q).

    Their Kronecker product differs from that of (A x G + d I) least in the trace norm. Source:
    Martens & Grosse (2015), section 6.3.
    """
    a, g = layer.inputs, layer.outputs
    ratio = (jnp.trace(a) / a.shape[0]) / jnp.maximum(
        jnp.trace(g) / g.shape[0], jnp.finfo(g.dtype).tiny
    )
    pi = jnp.sqrt(jnp.where(ratio > 0, ratio, 1))
    root = jnp.sqrt(jnp.asarray(damping, a.dtype))
    invert = lambda m, shift: jnp.linalg.inv(m + shift * jnp.eye(m.shape[0], dtype=m.dtype))
    return invert(a, pi * root), invert(g, root / pi)


class KfacState(NamedTuple):
    """Smoothed factors, the inverses in use, and how many updates were made."""

    factors: list
    inverses: list
    updates: Array


def kfac(
    model: Callable[..., Array],
    loss: Callable[..., Array],
    data: PyTree = None,
    *,
    damping: ArrayLike = 1e-3,
    every: int = 10,
    decay: float = 0.9,
) -> Any:
    """An optax transformation g -> (A + ..)^-1 g (G + ..)^-1 for every dense layer of a model.

    Factors are measured anew every `every` updates, and averaged with weights `decay` of the past.
    Leaves that belong to no dense layer pass unchanged.

    Args:
        model: `model(x, rows, dense)`, see `kronecker_factors`.
        loss: `loss(outputs, rows)`.
        data: rows to measure on. None: those given to `update(..., rows=batch)`.
        damping: d > 0, in units of the Gauss-Newton matrix.
        every: updates between two measurements.
        decay: of the average, in [0, 1).

    Source: Martens & Grosse (2015).

    """
    import optax

    if every < 1 or not 0 <= decay < 1:
        raise ValueError(f"`every` must be >= 1 and `decay` in [0, 1); {every}, {decay} came.")
    if not isinstance(damping, jax.core.Tracer) and not float(jnp.min(jnp.asarray(damping))) > 0:
        raise ValueError(f"`damping` must be positive, but {damping} came.")

    def measure(x: PyTree, rows: PyTree) -> list[Layer]:
        if rows is None:
            raise ValueError("kfac has no data: give `data`, or `update(..., rows=batch)`.")
        return kronecker_factors(model, loss, x, rows)

    def init(x: PyTree) -> KfacState:
        if data is None:
            raise ValueError("kfac needs `data` to know the layers: give it one batch of rows.")
        shapes = jax.eval_shape(lambda x: measure(x, data), x)
        factors = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        inverses = [(layer.inputs, layer.outputs) for layer in factors]
        return KfacState(factors, inverses, jnp.int32(0))

    def update(gradients, state, x=None, *, rows=None, **_):
        if x is None:
            raise ValueError("kfac needs the parameters: `update(gradients, state, params)`.")
        rows = data if rows is None else rows

        def anew(old: list) -> tuple[list, list]:
            part = 1 - choose(state.updates == 0, jnp.zeros(()), jnp.full((), decay))
            mix = lambda past, now: past + part.astype(now.dtype) * (now - past)
            new = [
                Layer(mix(a.inputs, b.inputs), mix(a.outputs, b.outputs), b.weight, b.bias)
                for a, b in zip(old, measure(x, rows), strict=True)
            ]
            return new, [damped_inverses(layer, damping) for layer in new]

        keep = lambda old: (old, state.inverses)
        factors, inverses = lax.cond(state.updates % every == 0, anew, keep, state.factors)
        leaves, tree = jax.tree.flatten(gradients)
        for (w, b), (a, g) in zip(_places(model, x, rows), inverses, strict=True):
            slope = leaves[w] if b < 0 else jnp.concatenate([leaves[w], leaves[b][None]])
            slope = a @ slope @ g
            leaves[w] = slope[: leaves[w].shape[0]]
            if b >= 0:
                leaves[b] = slope[-1]
        return jax.tree.unflatten(tree, leaves), KfacState(factors, inverses, state.updates + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def _places(model: Callable, x: PyTree, rows: PyTree) -> list[tuple[int, int]]:
    """Which leaves the layers are made of, found by tracing."""
    found = []

    def run(x: PyTree) -> Array:
        own = jax.tree.leaves(x)

        def tapped(layer: PyTree, h: Array) -> Array:
            w, b = _parts(layer)
            found.append((_find(own, w), -1 if b is None else _find(own, b)))
            return dense(layer, h)

        return model(x, rows, tapped)

    jax.eval_shape(run, x)
    return found


class DiagonalState(NamedTuple):
    """The smoothed diagonal, as a pytree like x, and how many updates were made."""

    diagonal: PyTree
    updates: Array


def scale_by_diagonal(
    fun: Callable[..., Array],
    args: tuple = (),
    *,
    data: PyTree = None,
    batch: int | None = None,
    probes: int = 1,
    every: int = 1,
    decay: float = 0.9,
    damping: ArrayLike = 1e-4,
    clip: ArrayLike | None = None,
    key: Array | None = None,
) -> Any:
    """An optax transformation g -> g / max(|h|, damping), h the diagonal of the Hessian.

    H is the average of z * Hz over random signs, with weights `decay` of the past, corrected for
    its start at zero. Without `clip` close to AdaHessian; with `clip`, at most that in every entry,
    it is Sophia's step, which is safe where h is small or negative.

    Args:
        fun: `fun(x, *args)`, or with rows `fun(x, rows, *args)`.
        args: further arguments.
        data: rows to measure on. `update(..., rows=batch)` gives others.
        batch: rows at a time.
        probes: products each time.
        every: updates between two measurements.
        decay: in [0, 1).
        damping: least curvature to divide by, > 0.
        clip: largest entry of the result.
        key: for the signs.

    Sources: Yao et al. (2021), AdaHessian; Liu et al. (2024), Sophia.

    """
    import optax

    if every < 1 or probes < 1 or not 0 <= decay < 1:
        raise ValueError(
            f"`every` and `probes` must be >= 1 and `decay` in [0, 1); {every}, {probes}, {decay} "
            "came."
        )
    key = jax.random.key(0) if key is None else key

    def init(x: PyTree) -> DiagonalState:
        return DiagonalState(jax.tree.map(jnp.zeros_like, x), jnp.int32(0))

    def update(gradients, state, x=None, *, rows=None, **_):
        if x is None:
            raise ValueError("It needs the parameters: `update(gradients, state, params)`.")
        rows = data if rows is None else rows
        form = Form.of(jax.tree.map(jnp.asarray, x))

        def anew(old: PyTree) -> PyTree:
            H = hessian(fun, x, args, data=rows, batch=batch)
            fresh = jax.random.fold_in(key, state.updates)
            z = jax.random.rademacher(fresh, (probes, form.size), form.dtype)
            now = form.unravel(jnp.mean(z * lax.map(H.linear(), z), axis=0))
            return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, old, now)

        measured = state.updates % every == 0
        kept = lax.cond(measured, anew, lambda old: old, state.diagonal)
        turns = (state.updates // every + 1).astype(form.dtype)
        bias = 1 - jnp.asarray(decay, form.dtype) ** turns

        def scaled(g: Array, h: Array) -> Array:
            step = g / jnp.maximum(jnp.abs(h) / bias.astype(h.dtype), damping)
            return step if clip is None else jnp.clip(step, -jnp.asarray(clip), clip)

        moved = jax.tree.map(scaled, gradients, kept)
        return moved, DiagonalState(kept, state.updates + 1)

    return optax.GradientTransformationExtraArgs(init, update)
