"""What the first call on a problem of ten variables costs: tracing, lowering and XLA."""

import jax.numpy as jnp

from . import peers
from .harness import benchmark, compile_cpu_seconds, table, traces_and_lines
from .lbfgs import rosenbrock

CONTESTANTS = (
    peers.DEFAULT,
    peers.TRUST_REGION_CG,
    peers.LBFGS,
    peers.JAXOPT_ZOOM,
    peers.JAXOPT_BACKTRACKING,
    peers.JAXOPT_BFGS,
    peers.OPTIMISTIX_BFGS,
    peers.OPTIMISTIX_LBFGS,
    peers.OPTAX_LBFGS,
    peers.JAX_SCIPY_BFGS,
)


@benchmark("compile", "the first call on Rosenbrock-10")
def compiling(quick: bool) -> list[str]:
    x0, rows = jnp.full(10, -1.2), []
    for peer in CONTESTANTS[:3:2] if quick else CONTESTANTS:
        seconds = compile_cpu_seconds(
            lambda peer=peer: peer.make(lambda x: rosenbrock(x), 1e-6, 5000), x0,
            samples=1 if quick else 5,
        )  # fmt: skip
        program = traces_and_lines(
            lambda fun, peer=peer: peer.make(fun, 1e-6, 5000), rosenbrock, x0
        )
        rows.append([peer.name, *program, seconds])
    return [table(["solver", "traces", "lines", "CPU-s"], rows)]
