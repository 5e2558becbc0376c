"""A JAX reinforcement-learning trainer for trading."""

import envs  # noqa: F401  (what it tells XLA comes before anything that uses jax)
