"""Progress of a running solve, told from inside `jit`: a tqdm bar, or a plain line without tqdm."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .types import Status

EVERY = 50  # steps between two messages

_bar: Any = None


def announce(steps: Array, value: Array, worst: Array, status: Array) -> None:
    """Tell the host every `EVERY` steps and at the end. Call only when progress is wanted."""
    due = (steps % EVERY == 0) | (status != Status.RUNNING)
    lax.cond(
        due,
        lambda *now: jax.debug.callback(_tell, *now),
        lambda *now: None,
        steps, value, worst, jnp.asarray(status, jnp.int32),
    )  # fmt: skip


def _tell(steps: Any, value: Any, worst: Any, status: Any) -> None:
    """One message on the host."""
    global _bar
    count, code = int(np.asarray(steps)), Status(int(np.asarray(status)))
    text = f"value {float(value):.6g}, residual {float(worst):.2e}"
    ended = code != Status.RUNNING
    try:
        from tqdm import tqdm
    except ImportError:
        print(f"step {count}: {text}{', ' + code.name if ended else ''}", file=sys.stderr)
        return
    if _bar is None:
        _bar = tqdm(unit=" steps", leave=True)
    _bar.update(count - _bar.n)
    _bar.set_postfix_str(f"{text}{', ' + code.name if ended else ''}", refresh=True)
    if ended:
        _bar.close()
        _bar = None
