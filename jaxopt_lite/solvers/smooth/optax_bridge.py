"""Any optax `GradientTransformation` as a solver: Adam, schedules, clipping and the rest."""

from typing import Any

import jax
import jax.numpy as jnp

from ...core import solver, static
from .first_order import FirstOrder


@solver()
class Optax(FirstOrder):
    """x <- x + update(grad f(x)), the update by optax on the user's own pytree.

    Masks, labels and schedules of optax see `x` in its own structure. Transformations with extra
    arguments are given `value`, `grad` and `value_fn`, so optax's line searches work; they evaluate
    inside the step. Memory is optax's. Stops by the gradient norm, which a constant step with noise
    does not reach: expect MAX_STEPS there.

    Args:
        transformation: an `optax.GradientTransformation`, for instance `optax.adam(1e-2)`. Keep the
            object: a new one is a new program. To sweep a rate, use `optax.inject_hyperparams`.

    """

    transformation: Any = static()

    def __post_init__(self):
        """Refuse what is not a transformation."""
        if not (hasattr(self.transformation, "init") and hasattr(self.transformation, "update")):
            raise TypeError(
                "Optax(transformation=...) must be an optax.GradientTransformation, but a "
                f"{type(self.transformation).__name__} came. Write `Optax(optax.adam(1e-2))`."
            )

    def unrolls(self, size: int) -> bool:
        """Not if the update has a loop of its own, as optax's line searches do."""
        x = jnp.zeros(size)

        def update(x):
            import optax

            extended = optax.with_extra_args_support(self.transformation)
            extra = {"value": jnp.sum(x), "grad": x, "value_fn": jnp.sum}
            return extended.update(x, self.transformation.init(x), x, **extra)[0]

        try:
            with jax.numpy_dtype_promotion("standard"):
                return "while[" not in str(jax.make_jaxpr(update)(x))
        except Exception:  # it wants the user's own pytree, as masks and labels do
            return True

    def start_memory(self, problem, x):
        """Optax's own state."""
        return self.transformation.init(problem.form.unravel(x))

    def move(self, problem, memory, x, value, gradient, args):
        """Optax's update, as a vector."""
        import optax

        def value_fn(tree):
            return problem.value(problem.form.ravel(tree), args)

        tree, slopes = problem.form.unravel(x), problem.form.unravel(gradient)
        extended = optax.with_extra_args_support(self.transformation)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes; its state keeps its own
            updates, memory = extended.update(
                slopes, memory, tree, value=value, grad=slopes, value_fn=value_fn
            )
        return problem.form.ravel(updates).astype(x.dtype), memory
