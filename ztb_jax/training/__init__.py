"""Training jobs: `python -m ztb_jax.training` and its siblings."""
