"""`python -m ztb_jax.training`: the main job."""

import sys

from ztb_jax.cli.main import run

sys.exit(run(["train", *sys.argv[1:]], prog="python -m ztb_jax.training"))
