"""A JAX reinforcement-learning trainer for trading."""

from envs.compiler import keep_results_right

keep_results_right()
