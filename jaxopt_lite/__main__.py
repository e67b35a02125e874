"""The command line: `python -m jaxopt_lite`, with `tour`, `solvers` and `solve`."""

import argparse
import inspect
import pathlib
import runpy
import sys
from typing import Any

EPILOG = """\
The file given to `solve` is a linear or quadratic program (.mps, .qps, .lp; needs the extra
"files"), or Python that defines
    problem   a jaxopt_lite.Problem
    x0        where to start
and may define
    args      the tuple passed on to the problem's functions   (default: ())
    options   a dict of options of jaxopt_lite.solve           (default: {})
For example:
    import jax.numpy as jnp
    import jaxopt_lite as jol
    problem = jol.Problem(lambda x, target: jnp.sum((x - target) ** 2))
    x0 = jnp.zeros(3)
    args = (jnp.array([1.0, 2.0, 3.0]),)
    options = {"solver": jol.LBFGS()}
The exit code is 0 when the solve converged, 1 when it did not, 2 for bad input.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxopt_lite",
        description="Solve, certify, differentiate and look at optimization problems in JAX.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    show = commands.add_parser("tour", help="the main job, on real data (default)")
    show.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo"), help="for pictures")
    commands.add_parser("solvers", help="list the solvers and what they accept")
    solve = commands.add_parser(
        "solve",
        help="solve what a Python, .mps, .qps or .lp file defines",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    solve.add_argument(
        "file", type=pathlib.Path, help="Python that defines `problem` and `x0`; or a program"
    )
    solve.add_argument("--float32", action="store_true", help="compute in single precision")
    given = parser.parse_args(argv)
    if given.command == "solvers":
        return list_solvers()
    if given.command == "solve":
        return solve_file(given.file, double=not given.float32)
    from .tour import tour

    tour(getattr(given, "out", pathlib.Path("demo")))
    return 0


def list_solvers() -> int:
    """One line a solver: name, the problems it takes, what it is."""
    from . import solvers  # noqa: F401  (fills the table)
    from .core import TABLE

    print(f"{'solver':<17}{'takes':<24}what it is")
    for name, row in TABLE.items():
        takes = ", ".join(["smooth", *sorted(row.accepts)])
        print(f"{name:<17}{takes:<24}{(inspect.getdoc(row) or '').splitlines()[0]}")
    return 0


def solve_file(path: pathlib.Path, double: bool) -> int:
    """Solve what a file defines; print solution and certificate."""
    import jax

    jax.config.update("jax_enable_x64", double)
    from . import certify
    from . import solve as run
    from .solvers.conic.files import SUFFIXES

    try:
        if path.suffix.lower() in SUFFIXES:
            return solve_program(path)
        defined = _load(path)
        solution = run(
            defined["problem"], defined["x0"], defined.get("args", ()), **defined.get("options", {})
        )
        print(solution)
        if not defined["problem"].features:
            print(f"\n{certify(defined['problem'], solution, defined.get('args', ()))}")
    except (OSError, TypeError, ValueError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    return 0 if bool(solution.success) else 1


def solve_program(path: pathlib.Path) -> int:
    """Solve a linear or quadratic program from a file; print solution and certificate."""
    from . import certify, read_program, solve_qp

    read = read_program(path)
    solution = solve_qp(*read.program)
    print(solution)
    if not bool(solution.success):
        return 1
    print(f"  of the file    {read.sign * float(solution.value) + read.offset:.10g}")
    shown = [f"{name} = {x:.6g}" for name, x in zip(read.names, solution.x, strict=True) if x != 0]
    print(f"  not 0          {', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}")
    print(f"\n{certify(read.program, solution)}")
    return 0


def _load(path: pathlib.Path) -> dict[str, Any]:
    """The names a problem file defines."""
    if not path.is_file():
        raise FileNotFoundError("there is no such file. See `python -m jaxopt_lite solve --help`.")
    defined = runpy.run_path(str(path))
    missing = [name for name in ("problem", "x0") if name not in defined]
    if missing:
        raise ValueError(
            f"the file must define {' and '.join(f'`{name}`' for name in missing)}. "
            "See `python -m jaxopt_lite solve --help`."
        )
    return defined


if __name__ == "__main__":
    sys.exit(main())
