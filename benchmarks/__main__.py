"""`python -m benchmarks [--quick] [NAME ...]`: run them, rewrite README.md."""

import os
import sys

# JAX and SciPy share OpenBLAS, whose second thread spins: on a busy machine that costs small
# factorisations a factor of up to 50.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if __name__ == "__main__":
    import jax

    from . import harness

    jax.config.update("jax_enable_x64", True)
    # Imported to register themselves, once float64 is set.
    from . import (  # noqa: F401
        batch,
        compiling,
        curvature,
        dense_limit,
        evaluations,
        fits,
        implicit,
        imports,
        lasso,
        lbfgs,
        learning,
        programs,
        rates,
        smooth,
        solution_map,
        sparse_programs,
        training,
    )
    from .cutest import command  # noqa: F401
    from .qp import batches as qp_batches  # noqa: F401  # registers itself
    from .qp import infeasible, linear, maros  # noqa: F401  # register themselves

    sys.exit(harness.main(sys.argv[1:]))
