"""The words for what a critical point is, shared by all that give such a verdict."""

import enum


class Kind(enum.IntEnum):
    """What the second-order test says; int32 codes in arrays, compare with `==`."""

    verdict: str
    theorem: str

    def __new__(cls, code: int, verdict: str = "", theorem: str = "") -> "Kind":
        """An int that knows what it means and why."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.verdict = verdict
        member.theorem = theorem
        return member

    NOT_STATIONARY = (
        0,
        "not a critical point",
        "where the gradient is not zero, f decreases along minus the gradient",
    )
    STRICT_MINIMUM = (
        1,
        "strict local minimum",
        "gradient zero and Hessian positive definite (second-order sufficient condition)",
    )
    STRICT_MAXIMUM = (
        2,
        "strict local maximum",
        "gradient zero and Hessian negative definite (second-order sufficient condition)",
    )
    SADDLE = (
        3,
        "saddle point",
        "gradient zero and Hessian indefinite: f falls along one direction and rises along another",
    )
    DEGENERATE = (
        4,
        "degenerate critical point: not decided by second derivatives",
        "gradient zero and Hessian singular, of one sign elsewhere: higher terms decide",
    )
    NONFINITE = (5, "not defined here", "the objective, its gradient or its Hessian is not finite")
    INFEASIBLE = (6, "not feasible", "a constraint is violated")
    UNQUALIFIED = (
        7,
        "feasible, but without multipliers: a constraint qualification fails",
        "where MFCQ fails a minimiser need not satisfy the KKT conditions: not decided by them",
    )
    NO_FEASIBLE_POINT = (
        8,
        "the program has no feasible point",
        "summed with prices the constraints say 0 <= -1 (Farkas)",
    )
    UNBOUNDED = (
        9,
        "the program has no minimum: it is unbounded below if it is feasible",
        "the value falls for ever along a direction that no constraint stops",
    )
    UNDECIDED = (
        10,
        "not decided: the bounds on the eigenvalues leave more than one answer",
        "an eigenvalue is only known to lie in an interval, here one that holds zero",
    )
