"""A JAX reinforcement-learning trainer for trading."""
