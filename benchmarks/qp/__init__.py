"""Quadratic and linear programs: ours and the peers, judged from the data alone.

    python -m benchmarks maros|qp_batches|lp|infeasible          run, rewrite README.md
    python -m benchmarks.qp --only ours                          Maros-Meszaros, printed only
    python -m benchmarks.qp --again "ours" --failures            forget the rows of a solver first

programs (data, files, the judge) -> peers (one adapter each) -> maros, batches, linear, infeasible
"""
