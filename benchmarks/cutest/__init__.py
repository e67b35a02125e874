"""CUTEst problems from sif2jax: who gets there, who only says so, and how fast.

    python -m benchmarks cutest                    run what the cache lacks, rewrite README.md
    python -m benchmarks.cutest --only ours        the same for some solvers, printed only
    python -m benchmarks.cutest --again "ours BFGS"       forget the rows of a solver first
    python -m benchmarks.cutest --problems "GULF HATFLDD" --failures

problems (sif2jax) -> contestants (peers, with these tolerances) -> rows (run, judge, cache) ->
report (tables and performance profiles)

A row is one solver on one problem, a file under build/cutest/: a run that is killed goes on where
it was. One worker process does the solving; it is killed, and the row lost, when compiling or
solving takes more than its cap of CPU time, the same for all.

Judged from outside: the gradient test is ||grad f(x)||_inf <= 1e-6 max(1, ||grad f(x0)||_inf) with
the gradient recomputed in float64; a success is also at a value f within 1e-4 max(1, |best|) of the
best that anybody found, or of the published optimum.

Every solver is asked for ||grad f||_inf <= 1e-6, without the scale: with it (`--ask relative`) the
number is so large where ||grad f(x0)|| is 1e10 that all stop far from the minimum, and the test on
the value is won by who goes further than asked. Optimistix, which has no test on the gradient, is
asked for changes of 1e-10.
"""
