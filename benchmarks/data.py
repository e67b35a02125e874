"""Logistic regression of any size and conditioning, its data passed in `args`."""

import jax.numpy as jnp
import numpy as np


def logistic(w, features, labels, penalty):
    """Mean of log(1 + exp(-y_i a_i'w)) + sum penalty_j w_j^2 / 2; `penalty` a number or (n,)."""
    return log_loss(w, features, labels) + 0.5 * jnp.sum(penalty * w * w)


def log_loss(w, features, labels):
    """Mean of log(1 + exp(-y_i a_i'w))."""
    return jnp.mean(jnp.logaddexp(0, -labels * (features @ w)))


def logistic_data(rows: int, columns: int, spread: float = 1.0, seed: int = 0):
    """(features, labels): normal features with scales from 1 down to 1/spread, labels with noise.

    The Hessian's condition number is about spread^2, up to what the penalty leaves of it.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, columns)) * np.geomspace(1, 1 / spread, columns)
    truth = rng.standard_normal(columns) * 3 / np.sqrt(columns)
    noisy = features @ truth + rng.logistic(size=rows)
    return jnp.asarray(features), jnp.asarray(np.where(noisy > 0, 1.0, -1.0))


def correlated(rng, n, p):
    """(n, p), normal columns correlated as 0.5^|i - j|."""
    X, fresh = np.empty((n, p)), rng.standard_normal((n, p))
    X[:, 0] = fresh[:, 0]
    for j in range(1, p):
        X[:, j] = 0.5 * X[:, j - 1] + np.sqrt(0.75) * fresh[:, j]
    return X
