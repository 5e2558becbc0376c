"""`python -m ztb_jax.training.windowed`: the main job in windows of environment steps."""

import sys

if __name__ == "__main__":
    from ztb_jax.cli.main import run

    sys.exit(run(["windowed", *sys.argv[1:]], prog="python -m ztb_jax.training.windowed"))
