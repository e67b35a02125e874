"""`python -m benchmarks.qp [--only NAMES] [--again NAMES] ...`: see `--help`."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if __name__ == "__main__":
    from .maros import main

    main()
