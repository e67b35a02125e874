"""Linear and quadratic programs from files: .mps, .qps and .lp, read by HiGHS."""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...core import QuadraticProgram

SUFFIXES = (".mps", ".qps", ".lp")


@dataclasses.dataclass(frozen=True)
class ProgramFile:
    """A program as read: the file's objective is `sign` times that of `program`, plus `offset`."""

    program: QuadraticProgram
    sign: float  # -1 where the file maximises
    offset: float
    names: list[str]  # of the variables


def read_program(path: str | pathlib.Path) -> ProgramFile:
    """The program in a file. Rows with equal sides become equations, bounds stay bounds.

    Needs `highspy`, the extra "files". Raises FileNotFoundError, and ValueError for a file that
    HiGHS cannot read or one with integer variables, which no solver here takes.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError("there is no such file.")
    highspy = _highspy()
    reader = highspy.Highs()
    reader.setOptionValue("output_flag", False)
    # .qps is .mps with a quadratic section, which HiGHS goes by the name of
    if reader.readModel(str(path)) == highspy.HighsStatus.kError:
        raise ValueError("HiGHS cannot read this file as a linear or quadratic program.")
    model = reader.getModel()
    lp, n = model.lp_, model.lp_.num_col_
    kinds = list(lp.integrality_)
    if any(kind != highspy.HighsVarType.kContinuous for kind in kinds):
        raise ValueError("the program has integer variables, which no solver here takes.")
    matrix = _dense(lp.a_matrix_, (lp.num_row_, n), highspy)
    sign = -1.0 if lp.sense_ == highspy.ObjSense.kMaximize else 1.0
    curvature = None
    if model.hessian_.dim_:
        half = _columns(model.hessian_, (n, n))
        curvature = sign * jnp.asarray(half + np.tril(half, -1).T)
    program = QuadraticProgram.from_rows(
        curvature,
        sign * np.asarray(lp.col_cost_, float),
        matrix,
        np.asarray(lp.row_lower_, float),
        np.asarray(lp.row_upper_, float),
        np.asarray(lp.col_lower_, float),
        np.asarray(lp.col_upper_, float),
    )
    names = list(lp.col_names_) or [f"x{i}" for i in range(n)]
    return ProgramFile(program, sign, float(lp.offset_), names)


def _dense(sparse: Any, shape: tuple[int, int], highspy: Any) -> np.ndarray:
    """A compressed matrix as an array, whether by columns or by rows."""
    if sparse.format_ == highspy.MatrixFormat.kColwise:
        return _columns(sparse, shape)
    return _columns(sparse, shape[::-1]).T


def _columns(sparse: Any, shape: tuple[int, int]) -> np.ndarray:
    """A matrix compressed by columns as an array."""
    start = np.asarray(sparse.start_)
    column = np.repeat(np.arange(shape[1]), np.diff(start[: shape[1] + 1]))
    dense = np.zeros(shape)
    count = column.size
    dense[np.asarray(sparse.index_)[:count], column] = np.asarray(sparse.value_)[:count]
    return dense


def _highspy() -> Any:
    try:
        import highspy
    except ImportError as error:
        raise ValueError(
            "reading .mps, .qps and .lp files needs highspy: `pip install jaxopt_lite[files]`."
        ) from error
    return highspy
