"""Least squares with a weighted l1 norm and a ridge, by working sets: the lasso and its paths.

    min_w  ||y - Xw||^2 / (2n) + sum_j l_j |w_j| + r/2 ||w||^2

    columns that break optimality -> their Gram matrix -> coordinate descent and Newton on it
      -> one product with X: residual correlations, duality gap, columns that break optimality

Columns once taken stay, with their Gram matrix, through all penalties of a path. Arrays have room
for so many; where it ends, columns that the last solution does not use make way for others, and who
needs still more comes back to ask for it (`Progress.full`). Where columns are long, several
penalties are solved ahead and measured by one product with X.
Sources: Massias, Gramfort & Salmon (2018), working sets and gaps; Friedman, Hastie & Tibshirani
(2010), descent on the Gram matrix and warm starts along a path.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...core import Status

ENDS = (Status.NONFINITE, Status.CONVERGED, Status.STALLED, Status.MAX_STEPS)
SWEEPS = 5  # of coordinate descent between two looks at the gap
ROUNDS = 200  # of sweeps and a Newton step, on one working set
PATIENCE = 6  # rounds without a Newton step while signs change
POLISH = 12  # rounds spent on more than was asked for
CHEAP = 136  # room up to which Newton's step costs less than a product with X
FEW = 16  # new columns, for which there is a product of its own
LOOSE = 0.1  # inner gaps, of the last one measured on all columns
LATE = 100  # solve exactly once fewer than one in so many columns taken breaks optimality
GROWTH = 3  # fourths of the support are taken in a step
FIRST = 64  # columns taken at first


class Rows(NamedTuple):
    """X (n, p) and y (n,), X'y / n and ||y||^2 / n."""

    X: Array
    y: Array
    cross: Array
    total: Array

    @classmethod
    def of(cls, X: Array, y: Array) -> "Rows":
        """The data as they came."""
        n = y.shape[0]
        return cls(X, y, y @ X / n, y @ y / n)

    def columns(self, new: Array) -> Array:
        """X_new, as rows."""
        return self.X[:, new].T

    def products(self, new: Array, kept: Array, index: Array) -> Array:
        """X_new'X_kept / n."""
        return new @ kept.T / self.y.shape[0]

    def correlations(self, kept: "Kept", weights: Array) -> tuple[Array, Array, Array]:
        """X'(y - Xw) / n, ||y - Xw||^2 / n and y - Xw for each row of `weights`."""
        residual = self.y - weights @ kept.columns
        n = self.y.shape[0]
        return residual @ self.X / n, jnp.sum(residual * residual, -1) / n, residual


class Moments(NamedTuple):
    """Data as X'X / n (p, p), X'y / n (p,) and ||y||^2 / n."""

    gram: Array
    cross: Array
    total: Array

    def columns(self, new: Array) -> Array:
        """What must be kept of new columns: which they are."""
        return self.gram[new]

    def products(self, new: Array, kept: Array, index: Array) -> Array:
        """X_new'X_kept / n."""
        return new[:, index]

    def correlations(self, kept: "Kept", weights: Array) -> tuple[Array, Array, Array]:
        """X'(y - Xw) / n, ||y - Xw||^2 / n and nothing for each row of `weights`."""
        image = weights @ kept.columns
        inner = jnp.sum(weights * (2 * kept.moment - image[:, kept.which]), -1)
        nothing = jnp.zeros((weights.shape[0], 0), image.dtype)
        return self.cross - image, jnp.maximum(self.total - inner, 0), nothing


Data = Rows | Moments


class Task(NamedTuple):
    """What is asked of the data."""

    penalties: Array  # (L,), descending
    weights: Array  # (p,), penalty on each column
    ridge: Array
    tol: Array
    max_steps: Array  # for each penalty


class Kept(NamedTuple):
    """The columns taken so far: the first `size` entries of arrays with room for m."""

    which: Array  # (m,), columns of X
    size: Array
    columns: Array  # (m, n), zeros where there is none; for `Moments` (m, p)
    gram: Array  # (m, m)
    moment: Array  # (m,)


class Progress(NamedTuple):
    """How far a path of L penalties is."""

    kept: Kept
    weights: Array  # (L, p)
    correlation: Array  # (L, p), X'(y - Xw) / n - r w
    gap: Array  # (L,), relative to the objective at 0
    status: Array  # (L,)
    steps: Array  # (L,), products with X
    dual: Array  # (L,), the scale that makes the residual a dual point
    residual: Array  # (L, n), y - Xw; (L, 0) for `Moments`
    score: Array  # (p,), how much columns not taken break optimality
    at: Array  # the first penalty that is not finished
    tight: Array  # whether the inner solve is to be exact
    full: Array  # more room is needed
    need: Array  # how much


def begin(data: Data, task: Task, start: Array | None, room: int) -> Progress:
    """Nothing taken but the support of `start`."""
    (p,), many, dtype = data.cross.shape, task.penalties.shape[0], data.cross.dtype
    width = data.columns(jnp.zeros(1, jnp.int32)).shape[1]
    kept = Kept(
        jnp.zeros(room, jnp.int32),
        jnp.int32(0),
        jnp.zeros((room, width), dtype),
        jnp.zeros((room, room), dtype),
        jnp.zeros(room, dtype),
    )
    found = jnp.zeros((many, p), dtype)
    correlation = data.cross
    if start is not None:
        _, new = lax.top_k(jnp.abs(start).astype(jnp.float32), room)
        wanted = jnp.minimum(jnp.sum(start != 0), room).astype(jnp.int32)
        kept = _taken(data, kept, new.astype(jnp.int32), wanted)
        values = jnp.where(jnp.arange(room, dtype=jnp.int32) < wanted, start[kept.which], 0)
        found = jnp.broadcast_to(_spread(kept, values, p), found.shape)
        correlation = data.correlations(kept, values[None])[0][0]
    return Progress(
        kept,
        found,
        jnp.broadcast_to(correlation, (many, p)),
        jnp.full(many, jnp.inf, dtype),
        jnp.full(many, int(Status.RUNNING), jnp.int32),
        jnp.zeros(many, jnp.int32),
        jnp.zeros(many, dtype),
        jnp.zeros((many, data.y.shape[0] if isinstance(data, Rows) else 0), dtype),
        _without(kept, jnp.abs(correlation) - task.penalties[0] * task.weights),
        jnp.int32(0),
        jnp.array(room <= CHEAP),
        jnp.array(False),
        jnp.int32(0),
    )


def widen(progress: Progress, room: int) -> Progress:
    """The same with room for more columns."""
    kept = progress.kept
    more = room - kept.which.shape[0]
    kept = Kept(
        jnp.pad(kept.which, (0, more)),
        kept.size,
        jnp.pad(kept.columns, ((0, more), (0, 0))),
        jnp.pad(kept.gram, ((0, more), (0, more))),
        jnp.pad(kept.moment, (0, more)),
    )
    return progress._replace(kept=kept, tight=jnp.array(False), full=jnp.array(False))


def wanted(progress: Progress) -> Array:
    """How many columns the next step takes: as many as there are, at most."""
    breaking = jnp.sum(progress.score > 0).astype(jnp.int32)
    growth = support(progress) * GROWTH // 4
    return jnp.minimum(breaking, jnp.maximum(growth, FIRST))


def support(progress: Progress) -> Array:
    """How many columns the last solution uses."""
    latest = progress.weights[_latest(progress)]
    return jnp.sum(latest != 0).astype(jnp.int32)


def _latest(progress: Progress) -> Array:
    """The penalty whose weights are the best start for the next."""
    tried = jnp.isfinite(progress.gap[progress.at])
    return jnp.where(tried, progress.at, jnp.maximum(progress.at - 1, 0))


def advance(
    data: Data,
    task: Task,
    progress: Progress,
    *,
    ahead: int,
    last: bool,
) -> Progress:
    """Until all penalties have a status, or there is no room for the columns that are wanted.

    `ahead` penalties are solved between two products with X: the last is there `ahead` times.
    `last`: there will be no more room.
    """
    penalties, weights, ridge, tol, max_steps = task
    room, many = progress.kept.which.shape[0], penalties.shape[0] - ahead + 1
    batch = min(room, max(FIRST, room // 2))
    eps = float(jnp.finfo(tol.dtype).eps)
    square = data.total
    null = jnp.where(square > 0, square / 2, 1)
    # Penalties below it are rounding errors of the correlations: 0 would leave no dual point.
    floor = rounding(data.cross)

    def running(now: Progress) -> Array:
        return (now.at < many) & ~now.full

    def body(now: Progress) -> Progress:
        count = jnp.minimum(wanted(now), batch)
        warm = now.weights[_latest(now)]
        tidy = now.kept.size + count > room
        kept = lax.cond(tidy, _tidied, lambda kept, _: kept, now.kept, warm)
        count = jnp.minimum(count, room - kept.size)
        _, new = lax.top_k(now.score.astype(jnp.float32), batch)
        kept = lax.cond(
            count <= FEW,
            lambda kept: _taken(data, kept, new[:FEW].astype(jnp.int32), count),
            lambda kept: _taken(data, kept, new.astype(jnp.int32), count),
            kept,
        )

        def block(array):
            return lax.dynamic_slice_in_dim(array, now.at, ahead)

        limit = block(penalties)[:, None] * weights
        before = block(now.gap)

        def packed(w):
            return jnp.where(jnp.arange(room, dtype=jnp.int32) < kept.size, w[kept.which], 0)

        aim = jnp.where(now.tight, tol, jnp.maximum(tol, LOOSE * jnp.minimum(now.gap[now.at], 0.1)))
        here = weights[kept.which]
        inner = functools.partial(_descend, kept, ridge, square, null, floor, aim, now.tight)

        def one(previous: Array, lane: tuple) -> tuple[Array, Array]:
            penalty, gap, own = lane
            found = inner(penalty * here, jnp.where(jnp.isfinite(gap), packed(own), previous))
            return found, found

        lanes = (block(penalties), before, block(now.weights))
        _, found = lax.scan(one, packed(warm), lanes)
        raw, remaining, residual = data.correlations(kept, found)
        spread = jax.vmap(functools.partial(_spread, kept, size=raw.shape[1]))(found)
        correlation = raw - ridge * spread
        measured = functools.partial(duality_gap, ridge=ridge, floor=floor)
        gap, dual = jax.vmap(measured)(spread, correlation, limit, remaining)
        gap = gap / null
        steps = block(now.steps) + 1

        # A penalty is done if all before it are, in order.
        excess = jnp.abs(correlation) - limit
        outside = jax.vmap(functools.partial(_without, kept))(excess)
        slightly = 1e-3 * jnp.max(limit, -1, keepdims=True) * tol
        breaking = jnp.sum(outside > slightly, -1, dtype=jnp.int32)
        finite = jnp.isfinite(gap)
        exact = now.tight | (gap <= 1e4 * eps)
        met = (gap <= tol) & exact
        # Nothing is left to take, or no room for it, and it was solved as well as can be.
        ended = now.tight & (before < jnp.inf) & (count == 0) & (jnp.arange(ahead) == 0)
        stuck = ended & ((breaking == 0) | (last & (kept.size >= room)))
        code = jnp.select(
            [~finite, met, stuck, steps >= max_steps],
            [int(s) for s in ENDS],
            int(Status.RUNNING),
        ).astype(jnp.int32)
        done = jnp.cumprod((code != int(Status.RUNNING)).astype(jnp.int32))
        advanced = jnp.minimum(jnp.sum(done, dtype=jnp.int32), many - now.at)
        at = now.at + advanced
        # What breaks optimality at the penalties to come, by the last correlations there are.
        latest = correlation[jnp.minimum(advanced, ahead - 1)]
        fresh = (advanced == ahead) | (at >= many)
        target = penalties[jnp.minimum(at + ahead // 2, many - 1)] * weights
        score = jnp.where(fresh, jnp.abs(latest) - target, excess[jnp.minimum(advanced, ahead - 1)])

        def put(old: Array, new: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(old, new, now.at, 0)

        few = (LATE * breaking[0] <= kept.size) | (count == 0)
        stepped = Progress(
            kept,
            put(now.weights, spread),
            put(now.correlation, correlation),
            put(now.gap, gap),
            put(now.status, code),
            put(now.steps, steps),
            put(now.dual, dual),
            put(now.residual, residual),
            _without(kept, score),
            at,
            jnp.where(advanced > 0, room <= CHEAP, now.tight | few | (gap[0] <= tol)),
            jnp.array(False),
            jnp.int32(0),
        )
        need = support(stepped) + wanted(stepped)
        return stepped._replace(full=(need > room) & (not last) & (at < many), need=need)

    return lax.while_loop(running, body, progress)


def _taken(data: Data, kept: Kept, new: Array, count: Array) -> Kept:
    """`kept` with the first `count` columns of `new`.

    Whole blocks of rows are written, which overlap with what was there where room ends: scattering
    them took as long as all the rest.
    """
    room, batch = kept.which.shape[0], new.shape[0]
    start = jnp.minimum(kept.size, room - batch)
    source = jnp.arange(batch, dtype=jnp.int32) - (kept.size - start)
    fresh = (source >= 0) & (source < count)
    picked = new[jnp.clip(source, 0, batch - 1)]

    def merged(old: Array, values: Array) -> Array:
        there = lax.dynamic_slice_in_dim(old, start, batch)
        return jnp.where(fresh.reshape(-1, *[1] * (old.ndim - 1)), values, there)

    def put(old: Array, block: Array, axis: int = 0) -> Array:
        return lax.dynamic_update_slice_in_dim(old, block, start, axis)

    which = put(kept.which, merged(kept.which, picked))
    block = merged(kept.columns, data.columns(picked))
    columns = put(kept.columns, block)
    used = jnp.arange(room, dtype=jnp.int32) < kept.size + count
    rows = jnp.where(used, data.products(block, columns, which), 0)
    gram = put(put(kept.gram, rows), rows.T, 1)
    moment = put(kept.moment, merged(kept.moment, data.cross[picked]))
    return Kept(which, kept.size + count, columns, gram, moment)


def _tidied(kept: Kept, weights: Array) -> Kept:
    """`kept` with the columns that `weights` uses alone."""
    room = kept.which.shape[0]
    uses = (weights[kept.which] != 0) & (jnp.arange(room, dtype=jnp.int32) < kept.size)
    order = jnp.nonzero(uses, size=room, fill_value=0)[0].astype(jnp.int32)
    size = jnp.sum(uses).astype(jnp.int32)
    real = jnp.arange(room, dtype=jnp.int32) < size
    gram = jnp.where(real[:, None] & real, kept.gram[order][:, order], 0)
    columns = jnp.where(real[:, None], kept.columns[order], 0)
    moment = jnp.where(real, kept.moment[order], 0)
    return Kept(jnp.where(real, kept.which[order], 0), size, columns, gram, moment)


def _spread(kept: Kept, values: Array, size: int) -> Array:
    """Weights of the columns taken in their places among all."""
    used = jnp.arange(kept.which.shape[0], dtype=jnp.int32) < kept.size
    return jnp.zeros(size, values.dtype).at[kept.which].add(jnp.where(used, values, 0))


def _without(kept: Kept, score: Array) -> Array:
    """`score` with nothing left of the columns that are taken."""
    room, p = kept.which.shape[0], score.shape[0]
    taken = jnp.where(jnp.arange(room, dtype=jnp.int32) < kept.size, kept.which, p)
    return score.at[taken].set(-jnp.inf, mode="drop")


def rounding(cross: Array) -> Array:
    """What X'(y - Xw) / n may be wrong by."""
    return 64 * float(jnp.finfo(cross.dtype).eps) * jnp.max(jnp.abs(cross))


def duality_gap(
    w: Array, correlation: Array, limit: Array, remaining: Array, *, ridge: Array, floor: Array
) -> tuple[Array, Array]:
    """P(w) - D(s (y - Xw)) and s, the largest number up to 1 that makes it feasible.

    The ridge is sqrt(n r) I below X and 0 below y. Written as a sum of terms that are not negative,
    (1 - s)^2/2 (||y - Xw||^2 / n + r ||w||^2) + sum_j l_j |w_j| - s w_j c_j, it does not cancel.
    """
    size = jnp.abs(correlation)
    scale = 1 / jnp.maximum(1, jnp.max(size / jnp.maximum(limit, floor)))
    both = remaining + ridge * (w @ w)
    terms = limit * jnp.abs(w) - scale * w * correlation
    gap = (1 - scale) ** 2 / 2 * both + jnp.sum(terms)
    # Negative penalties, which cannot be refused while traced, are no convex problem.
    return jnp.where(jnp.all(limit >= 0) & (ridge >= 0), gap, jnp.nan), scale


class _Inner(NamedTuple):
    w: Array
    q: Array  # X'(y - Xw) / n
    gap: Array
    rounds: Array


def _descend(
    kept: Kept,
    ridge: Array,
    square: Array,
    null: Array,
    floor: Array,
    aim: Array,
    tight: Array,
    limit: Array,
    w: Array,
) -> Array:
    """The best weights of the columns taken: sweeps, then Newton's step on their signs, and again.

    A sweep is one coordinate after the other, exactly: cost m^2. Newton's step solves the
    equations of the support for its signs, m^3/3; where a sign would change the weight becomes 0.
    """
    gram, moment, size = kept.gram, kept.moment, kept.size
    room = moment.shape[0]
    diagonal = jnp.diagonal(gram)
    curvature = diagonal + ridge
    inverse = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), 0)
    used = jnp.arange(room, dtype=jnp.int32) < size
    goal = jnp.minimum(aim, 1e4 * float(jnp.finfo(w.dtype).eps))

    def remaining(w, q):
        return jnp.maximum(square - w @ moment - w @ q, 0)

    def gap_of(w, q):
        correlation = jnp.where(used, q - ridge * w, 0)
        return (
            duality_gap(w, correlation, limit, remaining(w, q), ridge=ridge, floor=floor)[0] / null
        )

    def objective(w, q):
        return remaining(w, q) / 2 + limit @ jnp.abs(w) + ridge / 2 * w @ w

    def sweep(order, number, w, q):
        def coordinate(i, state):
            w, q = state
            j = order[i]
            old = w[j]
            pull = q[j] + diagonal[j] * old
            new = jnp.sign(pull) * jnp.maximum(jnp.abs(pull) - limit[j], 0) * inverse[j]
            return w.at[j].set(new), q - (new - old) * gram[j]

        return lax.fori_loop(0, number, coordinate, (w, q))

    def newton(w, q):
        on = w != 0
        signs = jnp.sign(w)
        eye = jnp.eye(room, dtype=w.dtype)
        system = jnp.where(on[:, None] & on, gram, 0) + eye * jnp.where(on, ridge, 1)
        factor = lax.linalg.cholesky(system, symmetrize_input=False)
        rhs = jnp.where(on, q - ridge * w - limit * signs, 0)
        step = jax.scipy.linalg.cho_solve((factor, True), rhs)
        full = w + step
        turned = on & (jnp.sign(full) != signs)
        clipped = jnp.where(turned, 0, full)
        after = moment - gram @ clipped
        lower = objective(clipped, after) <= objective(w, q) * (1 + 1e-12)
        lower = lower & jnp.all(jnp.isfinite(step))
        # Up to the first sign that changes the objective falls.
        ratio = jnp.where(turned, w / jnp.where(turned, w - full, 1), 1)
        part = jnp.min(ratio)
        short = jnp.where(turned & (ratio <= part), 0, w + part * step)
        usable = jnp.all(jnp.isfinite(short))
        new = jnp.where(lower, clipped, jnp.where(usable, short, w))
        return new, moment - gram @ new

    everything = jnp.arange(room, dtype=jnp.int32)

    def running(now: _Inner) -> Array:
        enough = (now.gap <= goal) | ((now.gap <= aim) & (~tight | (now.rounds >= POLISH)))
        return ~enough & (now.rounds < ROUNDS)

    def body(now: _Inner) -> _Inner:
        w, q = sweep(everything, size, now.w, now.q)
        signs = jnp.sign(w)
        active = jnp.nonzero(w != 0, size=room, fill_value=0)[0].astype(jnp.int32)
        number = jnp.sum(w != 0).astype(jnp.int32)
        w, q = lax.fori_loop(1, SWEEPS, lambda _, s: sweep(active, number, *s), (w, q))
        changed = jnp.sum(jnp.sign(w) != signs)
        ready = tight & ((changed == 0) | (now.rounds % PATIENCE == PATIENCE - 1))
        w, q = lax.cond(ready, newton, lambda w, q: (w, q), w, q)
        return _Inner(w, q, gap_of(w, q), now.rounds + 1)

    q = moment - gram @ w
    unknown = jnp.where(jnp.any(w != 0), jnp.inf, gap_of(w, q))
    start = _Inner(w, q, unknown, jnp.int32(0))
    return lax.while_loop(running, body, start).w


# -- the whole path --------------------------------------------------------------------------------


class Path(NamedTuple):
    """L fits, measured on the data."""

    weights: Array  # (L, p)
    correlation: Array  # (L, p)
    gap: Array  # (L,), relative
    status: Array
    steps: Array
    dual: Array  # (L,), the scale that makes the residual a dual point
    residual: Array  # (L, n), y - Xw; (L, 0) for `Moments`


def rooms(shape: tuple[int, ...], most: int, start: int, traced: bool) -> tuple[int, ...]:
    """For how many columns there is room, in turn: few sizes where all are compiled at once."""
    rows, features = shape
    top = min(features, most)
    # Eight more than powers of two: rows of 512 numbers fall on the same lines of the cache, and
    # factors of 512 columns take twice as long as those of 520.
    if traced:
        sizes = [136, 520, 2056, 8200]
    else:
        # Long columns make room dear, and each size costs seconds of compiling.
        sizes = [*[104] * (rows >= features), *range(136, 1032, 128)]
        while sizes[-1] < top:
            sizes.append(sizes[-1] * 5 // 4 // 128 * 128 + 8)
    return (*(size for size in sizes if max(start, 1) <= size < top), top)


def ahead_of(data: Data, many: int) -> int:
    """How many penalties to solve between two products: few where a solve costs more than one."""
    rows = data.y.shape[0] if isinstance(data, Rows) else data.cross.shape[0]
    return 1 if many == 1 or data.cross.shape[0] > rows else min(4, many)


def _padded(task: Task, ahead: int) -> Task:
    """The last penalty `ahead` times, so that every block of penalties is whole."""
    if ahead == 1:
        return task
    return task._replace(penalties=jnp.pad(task.penalties, (0, ahead - 1), mode="edge"))


@functools.partial(jax.jit, static_argnames=("ahead", "sizes"))
def staged(
    data: Data,
    task: Task,
    start: Array | None,
    *,
    ahead: int,
    sizes: tuple[int, ...],
) -> Path:
    """The path as one program: each size stands in it, and is run if that before was too small."""
    many, task = task.penalties.shape[0], _padded(task, ahead)

    def at(stage: int, progress: Progress) -> Path:
        last = stage == len(sizes) - 1
        progress = advance(data, task, progress, ahead=ahead, last=last)
        if last:
            return _ended(progress, many)
        return lax.cond(
            progress.full,
            lambda progress: at(stage + 1, widen(progress, sizes[stage + 1])),
            lambda progress: _ended(progress, many),
            progress,
        )

    return at(0, begin(data, task, start, sizes[0]))


def _ended(progress: Progress, many: int) -> Path:
    return Path(
        progress.weights[:many],
        progress.correlation[:many],
        progress.gap[:many],
        progress.status[:many],
        progress.steps[:many],
        progress.dual[:many],
        progress.residual[:many],
    )


_begin = jax.jit(begin, static_argnames=("room",))
_advance = jax.jit(advance, static_argnames=("ahead", "last"), donate_argnames=("progress",))
_widen = jax.jit(widen, static_argnames=("room",))
_end = jax.jit(_ended, static_argnames=("many",))


def driven(
    data: Data,
    task: Task,
    start: Array | None,
    *,
    ahead: int,
    sizes: tuple[int, ...],
) -> Path:
    """The path driven from the host: only the sizes that are needed are compiled and run."""
    many, task = task.penalties.shape[0], _padded(task, ahead)
    progress = _begin(data, task, start, room=sizes[0])
    room = sizes[0]
    while True:
        progress = _advance(data, task, progress, ahead=ahead, last=room == sizes[-1])
        full, need = jax.device_get((progress.full, progress.need))
        if not full:
            return _end(progress, many=many)
        room = next((size for size in sizes if size >= need), sizes[-1])
        progress = _widen(progress, room=room)
