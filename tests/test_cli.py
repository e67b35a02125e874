"""The command line, run as a user runs it."""

import pathlib
import subprocess
import sys

import pytest

from jaxopt_lite.__main__ import main

PROBLEM = """
import jax.numpy as jnp
import jaxopt_lite as jol
problem = jol.Problem(lambda x, target: {objective})
x0 = jnp.ones(3)
args = (jnp.array([1.0, 2.0, 3.0]),)
options = {options}
"""


def write(folder: pathlib.Path, objective: str, options: str = "{}") -> str:
    path = folder / "problem.py"
    path.write_text(PROBLEM.format(objective=objective, options=options))
    return str(path)


def test_solve_prints_solution_and_certificate(tmp_path, capsys):
    code = main(["solve", write(tmp_path, "jnp.sum((x - target) ** 2)", '{"solver": jol.LBFGS()}')])
    out = capsys.readouterr().out
    assert code == 0
    assert "CONVERGED" in out
    assert "CERTIFIED: strict local minimum" in out


@pytest.mark.parametrize(
    ("objective", "options", "code"),
    [
        ("jnp.sum((x - target) ** 2)", '{"max_steps": 1}', 1),
        ("-jnp.sum(x ** 2)", "{}", 1),
        ("x", "{}", 2),
        ("jnp.sum(x)", '{"max_step": 3}', 2),
    ],
)
def test_exit_code_says_when_it_is_not_solved(tmp_path, capsys, objective, options, code):
    assert main(["solve", write(tmp_path, objective, options)]) == code
    captured = capsys.readouterr()
    assert captured.err if code == 2 else captured.out


def test_missing_file_and_missing_names_are_said(tmp_path, capsys):
    assert main(["solve", str(tmp_path / "nothing.py")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert main(["solve", str(tmp_path / "empty.py")]) == 2
    assert "`problem` and `x0`" in capsys.readouterr().err


def test_solvers_lists_the_table(capsys):
    from jaxopt_lite.core import TABLE

    assert main(["solvers"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in TABLE)


def test_help_documents_the_problem_file(capsys):
    with pytest.raises(SystemExit):
        main(["solve", "--help"])
    assert "problem   a jaxopt_lite.Problem" in capsys.readouterr().out


def test_tour_shows_fits_certificates_derivatives_and_pictures(tmp_path):
    command = [sys.executable, "-m", "jaxopt_lite", "tour", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("strict local minimum") >= 3 + 1  # fits, report
    assert "9 critical points in the box: 4 minima, 4 saddles, 1 maximum" in done.stdout
    assert "1000 starts: 1000 ended at these" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    rows = [row for row in rows if row and row[0] in ("0.001", "0.01", "0.1")]
    assert len(rows) == 3  # one a penalty
    assert all(
        float(row[4]) < 1e-7 for row in rows
    )  # implicit against central differences, h = 1e-4
    assert (tmp_path / "tour.png").stat().st_size > 50_000


MPS = """NAME          DIET
ROWS
 N  COST
 G  ENERGY
 L  SUGAR
COLUMNS
    BREAD     COST      2.0   ENERGY    4.0
    BREAD     SUGAR     1.0
    MILK      COST      3.0   ENERGY    3.0
RHS
    RHS       ENERGY    12.0  SUGAR     2.0
BOUNDS
 UP BND       BREAD     9.0
ENDATA
"""
QUADRATIC = """minimize
obj: - 2 x - 5 y + [ 2 x ^2 + 2 y ^2 ] / 2
subject to
c1: x + y <= 2
bounds
x free
y <= 1.5
end
"""


@pytest.mark.parametrize(
    ("name", "text", "value"), [("diet.mps", MPS, 2 * 2 + 3 * 4 / 3), ("near.lp", QUADRATIC, -6.0)]
)
def test_solve_reads_program_files(tmp_path, capsys, name, text, value):
    # Diet: 2 bread, as much as sugar allows, and 4/3 milk. The other: (1/2, 3/2) on the bound.
    (tmp_path / name).write_text(text)
    assert main(["solve", str(tmp_path / name)]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if "of the file" in line)
    assert float(line.split()[-1]) == pytest.approx(value, abs=1e-7)
    assert "CONVERGED" in said


def test_a_program_with_integer_variables_is_refused(tmp_path, capsys):
    text = QUADRATIC.replace("end", "general\ny\nend")
    (tmp_path / "whole.lp").write_text(text)
    assert main(["solve", str(tmp_path / "whole.lp")]) == 2
    assert "integer" in capsys.readouterr().err
