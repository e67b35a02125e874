"""Curvature of networks against PyHessian, curvlinops and matfree, and what spectra look like.

Digits of scikit-learn (1,797 x 64), tanh networks, cross-entropy, float32 unless said otherwise.
"""

import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.special import ndtr
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

import jaxopt_lite as jol
from jaxopt_lite import curvature

from .harness import benchmark, ratio, table

WIDE, SMALL = (64, 280, 280, 10), (64, 40, 10)  # 99,690 and 3,010 parameters
STEPS = 64
PEERS = ("torch", "pyhessian", "curvlinops-for-pytorch", "matfree")
HERE = pathlib.Path(__file__).parent.parent


def data(dtype=jnp.float32):
    X, y = load_digits(return_X_y=True)
    return jnp.asarray(X / 16, dtype), jnp.asarray(y, jnp.int32)


def initial(sizes, dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (jnp.asarray(rng.normal(size=(a, b)) / a**0.5, dtype), jnp.zeros(b, dtype))
        for a, b in itertools.pairwise(sizes)
    ]


def model(p, rows):
    h = rows[0]
    for w, b in p[:-1]:
        h = jnp.tanh(h @ w + b)
    return h @ p[-1][0] + p[-1][1]


def entropy(logits, rows):
    picked = jnp.take_along_axis(logits, rows[1][:, None], axis=1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked[:, 0])


def loss(p, rows):
    return entropy(model(p, rows), rows)


@functools.partial(jax.jit, static_argnums=(0, 3))
def train(loss, p, rows, steps, rate):
    slope = jax.grad(loss)
    move = lambda _, p: jax.tree.map(lambda leaf, g: leaf - rate * g, p, slope(p, rows))
    return lax.fori_loop(0, steps, move, p)


# -- time -----------------------------------------------------------------------------------------


@jax.jit
def _products(operator, v):
    """64 products in one program, each of the vector before."""
    apply = operator.linear()

    def turn(_, v):
        w = apply(v)
        return w / jnp.linalg.norm(w)

    return lax.fori_loop(0, STEPS, turn, v)


def _costs(quick):
    rows = [_cost(jnp.dtype(name), quick) for name in ("float32", "float64")]
    header = ["", "gradient, ms", "HVP", "HVP in batches", "GGN product", "64 HVPs in one program",
              "Lanczos-64 over 64 HVPs", "over the one program", "off orthonormal"]  # fmt: skip
    note = (
        "99,690 parameters, all data; CPU-seconds of all threads, medians of turns. Products in "
        "gradients, 64 of them in 64 products."
    )
    return [note, table(header, rows)]


def _cost(dtype, quick):
    p, digits = initial(WIDE, dtype), data(dtype)
    H = curvature.hessian(loss, p, data=digits)
    G = curvature.gauss_newton(model, entropy, p, data=digits)
    B = curvature.hessian(loss, p, data=digits, batch=256)
    slope = jax.jit(jax.grad(loss))
    v = jnp.ones(H.shape[0], dtype)
    several = lambda one: [one() for _ in range(8)]
    calls = {
        "gradient": lambda: several(lambda: slope(p, digits)),
        "HVP": lambda: several(lambda: H @ v),
        "HVP, batches of 256": lambda: several(lambda: B @ v),
        "GGN product": lambda: several(lambda: G @ v),
        "64 HVPs, one program": lambda: _products(H, v),
        "Lanczos, 64 steps": lambda: curvature.lanczos(H, STEPS, v),
    }
    times = _cpu_seconds(calls, 2 if quick else 15)
    base, single = times["gradient"] / 8, times["HVP"] / 8
    inner = np.asarray(curvature.lanczos(H, STEPS, v).basis, float)
    return [
        dtype.name,
        1e3 * float(np.median(base)),
        *(ratio(times[k] / 8, base) for k in list(calls)[1:4]),
        ratio(times["64 HVPs, one program"], STEPS * single),
        ratio(times["Lanczos, 64 steps"], STEPS * single),
        ratio(times["Lanczos, 64 steps"], times["64 HVPs, one program"]),
        float(np.max(np.abs(inner @ inner.T - np.eye(STEPS)))),
    ]


def _cpu_seconds(calls, samples):
    """CPU-seconds of each call, in turns; the first of each compiles."""
    for call in calls.values():
        jax.block_until_ready(call())
    times = {name: [] for name in calls}
    for _ in range(samples):
        for name, call in calls.items():
            start = time.process_time()
            jax.block_until_ready(call())
            times[name].append(time.process_time() - start)
    return {name: np.array(column) for name, column in times.items()}


def _torch_net(sizes, p):
    import torch

    layers = []
    for (a, b), (w, c) in zip(itertools.pairwise(sizes), p, strict=True):
        layer = torch.nn.Linear(a, b)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(np.asarray(w).T))
            layer.bias.copy_(torch.tensor(np.asarray(c)))
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def _peers(quick):
    p, digits = initial(WIDE), data()
    H = curvature.hessian(loss, p, data=digits)
    v = jnp.asarray(np.random.default_rng(0).normal(size=H.shape[0]), jnp.float32)
    makers = {
        "PyHessian": _pyhessian,
        "curvlinops": _curvlinops,
        "matfree": lambda p, digits: _matfree(H, v),
    }
    made = {
        "ours": (
            lambda: H @ v,
            lambda: jnp.linalg.eigvalsh(curvature.lanczos(H, STEPS, v).projected)[-1],
            lambda: curvature.spectral_density(H, probes=2, steps=STEPS).nodes,
            None,
        )
    }
    missing = []
    for name, make in makers.items():
        try:
            made[name] = make(p, digits)
        except ImportError as error:
            missing.append(f"{name} is not installed ({error.name})")
    rows = []
    kinds = ("HVP", "Lanczos", "density")
    times, firsts, tops = {}, {}, {}
    for place, kind in enumerate(kinds):
        calls = {name: parts[place] for name, parts in made.items()}
        for name, call in calls.items():
            start = time.process_time()
            answer = jax.block_until_ready(call())
            firsts[name, kind] = time.process_time() - start
            tops[name, kind] = answer
        times[kind] = _cpu_seconds(calls, 2 if quick else 5)
    for name in made:
        row = [name, 1e3 * float(np.median(times["HVP"][name]))]
        for kind in kinds[1:]:
            row += [
                float(np.median(times[kind][name])),
                ratio(times[kind][name], times[kind]["ours"]),
                firsts[name, kind],
            ]
        rows.append([*row, float(np.asarray(tops[name, "Lanczos"]).max())])
    header = ["", "HVP, ms", "Lanczos-64, s", "in ours", "first call, s", "density 2 x 64, s",
              "in ours", "first call, s", "largest eigenvalue"]  # fmt: skip
    note = (
        "The same network in PyTorch and JAX, CPU-seconds in turns in one process. PyHessian has "
        "Lanczos in its density alone: one probe of it is taken, with full orthogonalisation. "
        "`torch.eig`, which it calls and which is gone from PyTorch, was put back. curvlinops's "
        "`fast_lanczos` does not orthogonalise. matfree is given our product. "
        + ", ".join(f"{name} {version(name)}" for name in PEERS if not missing)
        + "; ".join(missing)
    )
    return [note, table(header, rows)]


def _pyhessian(p, digits):
    import torch
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    def eig(matrix, eigenvectors):
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    torch.eig = eig
    net = _torch_net(WIDE, p)
    X, y = (torch.tensor(np.asarray(leaf)) for leaf in digits)
    H = hessian(net, torch.nn.CrossEntropyLoss(), data=(X, y.long()), cuda=False)
    v = [torch.ones_like(w) for w in H.params]
    return (
        lambda: hessian_vector_product(H.gradsH, H.params, v)[0].numpy(),
        lambda: np.max(H.density(iter=STEPS, n_v=1)[0]),
        lambda: np.asarray(H.density(iter=STEPS, n_v=2)[0]),
        H,
    )


def _curvlinops(p, digits):
    import torch
    from curvlinops import HessianLinearOperator
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    net = _torch_net(WIDE, p)
    X, y = (torch.tensor(np.asarray(leaf)) for leaf in digits)
    batches = [(X, y.long())]
    names = dict(net.named_parameters())
    try:
        H = HessianLinearOperator(net, torch.nn.CrossEntropyLoss(), names, batches)
    except (TypeError, AttributeError, ValueError):
        H = HessianLinearOperator(net, torch.nn.CrossEntropyLoss(), list(names.values()), batches)
    v = torch.ones(H.shape[1])
    run = lambda: fast_lanczos(H, STEPS)[0].max().item()
    return lambda: (H @ v).detach().numpy(), run, lambda: np.asarray([run(), run()]), H


def _matfree(H, v):
    from matfree.decomp import tridiag_sym

    decompose = tridiag_sym(STEPS)
    matrix = jax.jit(lambda H, v: jnp.linalg.eigvalsh(decompose(H.apply, v).J_small))
    z = jnp.stack([jnp.sign(v), -jnp.sign(v[::-1])])
    density = jax.jit(lambda H, z: lax.map(lambda v: matrix(H, v), z))
    return lambda: H @ v, lambda: matrix(H, v)[-1], lambda: density(H, z), None


# -- exact Hessians -------------------------------------------------------------------------------

EXACT = """
import json, pathlib, sys, time
sys.path.insert(0, {here!r})
import numpy as np, jax, jax.numpy as jnp
from benchmarks import curvature as here
from jax.flatten_util import ravel_pytree
p, rows = here.initial(here.SMALL), here.data()
flat, back = ravel_pytree(p)
kind = {kind!r}
if kind == "ours":
    run = lambda: here.curvature.hessian(here.loss, p, data=rows).to_dense()
elif kind == "ours, batches of 256":
    run = lambda: here.curvature.hessian(here.loss, p, data=rows, batch=256).to_dense()
elif kind == "jax.hessian":
    whole = jax.jit(jax.hessian(lambda f: here.loss(back(f), rows)))
    run = lambda: whole(flat)
else:
    import torch
    X, y = (torch.tensor(np.asarray(leaf)) for leaf in rows)
    t = torch.tensor(np.asarray(flat))
    def loss(t):
        v, w, b, c = t[:2560].reshape(64, 40), t[2560:2600], t[2600:3000].reshape(40, 10), t[3000:]
        logits = torch.tanh(X @ v + w) @ b + c
        return torch.nn.functional.cross_entropy(logits, y.long())
    whole = torch.func.hessian(loss)
    run = lambda: whole(t).numpy()
jax.block_until_ready(jax.jit(jnp.sum)(flat))
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
status = lambda: pathlib.Path("/proc/self/status").read_text()
peak = lambda: int(status().split("VmHWM:")[1].split()[0]) / 1024
base, times = peak(), []
for _ in range(3):
    start = time.perf_counter()
    H = run()
    jax.block_until_ready(H)
    times.append(time.perf_counter() - start)
H = np.asarray(H)
print(json.dumps([times[0], min(times[1:]), peak() - base, float(np.abs(H - H.T).max()),
                  float(np.trace(H))]))
"""


def _exact(quick):
    rows = []
    for kind in ("ours", "ours, batches of 256", "jax.hessian", "torch.func.hessian"):
        done = subprocess.run(
            [sys.executable, "-c", EXACT.format(here=str(HERE), kind=kind)],
            capture_output=True, text=True, check=False, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        if done.returncode:
            rows.append([f"{kind}: {done.stderr.strip().splitlines()[-1][:60]}", *[None] * 5])
            continue
        rows.append([kind, *json.loads(done.stdout.splitlines()[-1])])
    header = [
        "",
        "first call, s",
        "then, s",
        "peak memory, MB",
        "off symmetric",
        "trace",
    ]
    note = (
        "The dense Hessian of 3,010 parameters, each in a process of its own. Memory is the "
        "greatest resident set less that before, and holds the matrix of 36 MB and XLA's compiler."
    )
    return [note, table(header, rows)]


# -- what spectra look like -----------------------------------------------------------------------


def rectifier(p, rows):
    return jax.nn.relu(rows[0] @ p["w"] + p["b"]) @ p["v"] + p["c"] + rows[2]


def blobs(classes, seed=0):
    """Orthogonal centres 8 deviations long, a net with small weights; absent classes masked."""
    rng = np.random.default_rng(seed)
    centres = 8 * np.linalg.qr(rng.normal(size=(32, 10)))[0].T
    y = np.arange(200) % classes
    missing = np.tile(np.where(np.arange(10) < classes, 0.0, -1e9), (200, 1))
    rows = tuple(map(jnp.asarray, (centres[y] + rng.normal(size=(200, 32)), y, missing)))
    scale = {"w": 0.2 * (2 / 32) ** 0.5, "b": 0.0, "v": 0.2 * (2 / 64) ** 0.5, "c": 0.0}
    shapes = {"w": (32, 64), "b": (64,), "v": (64, 10), "c": (10,)}
    return rows, {k: jnp.asarray(scale[k] * rng.normal(size=s)) for k, s in shapes.items()}


def _gaps(operator, count=14):
    """Where neighbours among the largest eigenvalues differ most, and by what factor."""
    values = np.asarray(curvature.eigenpairs(operator, count, room=60).values)[::-1]
    ratios = values[: count - 2] / values[1 : count - 1]
    return int(np.argmax(ratios)) + 1, float(np.max(ratios))


def _outliers(quick):
    fun = lambda p, rows: entropy(rectifier(p, rows), rows)
    rows = []
    for classes in (2, 5, 8, 10):
        for seed in range(1 if quick else 3):
            given, before = blobs(classes, seed)
            after = train(fun, before, given, 100, 0.1)
            operators = (
                curvature.hessian(fun, before, data=given),
                curvature.hessian(fun, after, data=given),
                curvature.gauss_newton(rectifier, entropy, after, data=given),
            )
            found = [_gaps(operator) for operator in operators]
            rows.append([f"blobs, C = {classes}", seed, *(cell for pair in found for cell in pair)])
    digits = data(jnp.float64)
    for seed in range(1 if quick else 3):
        before = initial(SMALL, jnp.float64, seed)
        after = train(loss, before, digits, 1000, 0.5)
        operators = (
            curvature.hessian(loss, before, data=digits),
            curvature.hessian(loss, after, data=digits),
            curvature.gauss_newton(model, entropy, after, data=digits),
        )
        found = [_gaps(operator) for operator in operators]
        rows.append(["digits, C = 10", seed, *(cell for pair in found for cell in pair)])
    header = ["", "seed", "before: widest gap after", "ratio", "trained: after", "ratio",
              "its GGN: after", "ratio"]  # fmt: skip
    note = (
        "Where the largest eigenvalues have their widest gap, lambda_k / lambda_(k+1), k to 12. "
        "Blobs: 200 points in 32 dimensions, one layer of 64 ReLUs, 100 steps of gradient descent; "
        "digits: 3,010 parameters, tanh, 1,000 steps. Float64."
    )
    return [note, table(header, rows)]


def _densities(quick):
    rows = []
    digits = data(jnp.float64)
    before = initial((64, 12, 10), jnp.float64)
    after = train(loss, before, digits, 300, 0.5)
    for name, p in (("before", before), ("trained", after)):
        for kind, H in (
            ("Hessian", curvature.hessian(loss, p, data=digits)),
            ("GGN", curvature.gauss_newton(model, entropy, p, data=digits)),
        ):
            exact = np.linalg.eigvalsh(np.asarray(H.to_dense()))
            density = curvature.spectral_density(H, probes=20, steps=80)
            width = 0.01 * (exact[-1] - exact[0])
            grid = np.linspace(exact[0] - 4 * width, exact[-1] + 4 * width, 2001)
            mass = np.trapezoid(np.asarray(density.at(grid, width).value), grid)
            share = density.below(grid, width)
            truth = np.mean(ndtr((grid[:, None] - exact) / width), axis=1)
            wrong = np.abs(np.asarray(share.value) - truth)
            within = np.mean(wrong <= 2 * np.asarray(share.error) + 1e-9)
            rows.append([
                f"{kind}, {name}", exact.size, exact[0], exact[-1], float(mass - 1),
                float(wrong.max()), float(np.max(np.asarray(share.error))), float(within),
            ])  # fmt: skip
    header = ["", "parameters", "smallest", "largest", "mass - 1", "share below: worst error",
              "largest standard error", "within two of them"]  # fmt: skip
    note = (
        "Stochastic Lanczos quadrature, 20 probes of 80 steps, against all eigenvalues, smoothed "
        "by 1 % of the range: the share of eigenvalues below each of 2,001 points."
    )
    return [note, table(header, rows)]


# -- landscapes -----------------------------------------------------------------------------------


def field(x, waves, phases):
    """An isotropic Gaussian random function, to the accuracy of 200 waves."""
    return jnp.sum(jnp.cos(waves @ x + phases)) * (2 / phases.size) ** 0.5


def _random_functions(quick):
    # Bardeen, Bond, Kaiser & Szalay (1986), appendix A: minima to saddles 1 : (29 + 6 sqrt 6) /
    # (29 - 6 sqrt 6) in three dimensions.
    root = 6 * 6**0.5
    theory = {1: 1 / 2, 2: 1 / 4, 3: (29 - root) / 116}
    rows = []
    for n, side, fields in ((1, 40.0, 6), (2, 9.0, 6), (3, 5.0, 6), (4, 3.5, 6)):
        counts = np.zeros(n + 1, int)
        for seed in range(2 if quick else fields):
            rng = np.random.default_rng(seed)
            args = jnp.asarray(rng.normal(size=(200, n))), jnp.asarray(rng.uniform(0, 7, 200))
            ends = jnp.zeros(n), jnp.full(n, side)
            found = jol.find_critical_points(field, *ends, args, starts=600)
            counts += np.bincount(np.asarray(found.points.morse_index), minlength=n + 1)[: n + 1]
        share = counts[0] / counts.sum()
        error = (share * (1 - share) / counts.sum()) ** 0.5
        rows.append([str(n), int(counts.sum()), str(counts.tolist()), float(share), float(error),
                     theory.get(n)])  # fmt: skip
    header = [
        "dimension",
        "critical points",
        "by Morse index",
        "minima",
        "standard error",
        "theory",
    ]
    note = "Critical points of random functions, 200 waves, found in boxes from 600 starts each."
    return [note, table(header, rows)]


def _index_and_loss(quick):
    inputs, hidden, classes, rows = 2, 4, 3, 60
    rng = np.random.default_rng(0)
    y = np.arange(rows) % classes
    angle = 2 * np.pi * np.arange(classes) / classes
    X = rng.normal(size=(rows, 2)) + 2 * np.stack([np.cos(angle), np.sin(angle)], 1)[y]
    given = jnp.asarray(X), jnp.asarray(y)
    sizes = (inputs, hidden, classes)
    flat, back = jax.flatten_util.ravel_pytree(initial(sizes, jnp.float64))
    fun = lambda p: loss(back(p), given) + 0.005 * p @ p
    slope, bend = jax.grad(fun), jax.hessian(fun)

    def search(x, steps):
        x = lax.fori_loop(0, steps, lambda _, x: x - 0.5 * slope(x), x)

        def newton(_, carry):  # on |gradient|^2, damped
            x, damping = carry
            g, (values, vectors) = slope(x), jnp.linalg.eigh(bend(x))
            new = x - vectors @ (values / (values**2 + damping) * (vectors.T @ g))
            better = jnp.linalg.norm(slope(new)) < jnp.linalg.norm(g)
            damping = damping * jnp.where(better, 0.2, 4.0)
            return jnp.where(better, new, x), damping

        x, _ = lax.fori_loop(0, 100, newton, (x, jnp.asarray(1e-2)))
        return fun(x), jnp.max(jnp.abs(slope(x))), jnp.linalg.eigvalsh(bend(x))

    count = 100 if quick else 600
    starts = rng.normal(size=(count, flat.size)) * rng.uniform(0.1, 1.5, size=(count, 1))
    steps = (300 * rng.uniform(size=count) ** 2 * (rng.uniform(size=count) > 0.3)).astype(np.int32)
    value, gradient, eigenvalues = map(
        np.asarray, jax.jit(jax.vmap(search))(jnp.asarray(starts), jnp.asarray(steps))
    )
    true = gradient < 1e-9
    _, first = np.unique(np.round(value[true], 8), return_index=True)
    value, eigenvalues = value[true][first], eigenvalues[true][first]
    index = np.sum(eigenvalues < -1e-7, axis=1)
    rank, linear = spearmanr(index, value).statistic, np.corrcoef(index, value)[0, 1]
    header = [
        "starts",
        "reached gradient zero",
        "distinct",
        "index to",
        "rank correlation",
        "linear",
    ]
    row = [count, int(true.sum()), value.size, int(index.max()), float(rank), float(linear)]
    note = (
        f"Index against loss (Dauphin et al., 2014): {flat.size} parameters, weight decay 0.01, "
        "three clusters in the plane; starts after up to 300 steps of descent driven to gradient "
        "zero; what stalled above 1e-9 is left out."
    )
    return [note, table(header, [row])]


@benchmark("curvature", "products, Lanczos, exact Hessians and spectra")
def curvatures(quick: bool) -> list[str]:
    parts = (_costs, _peers, _exact, _outliers, _densities, _random_functions, _index_and_loss)
    return [block for part in parts for block in part(quick)]
