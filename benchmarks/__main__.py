"""`python -m benchmarks [--quick] [NAME ...]`: run the benchmarks, rewrite their tables in README.md."""

import sys

import jax

from . import harness

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    from . import batch, dense_limit, implicit, imports, lbfgs, smooth  # noqa: F401  (they register)

    sys.exit(harness.main(sys.argv[1:]))
