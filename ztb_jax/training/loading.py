"""The bars that a configuration names, with its features."""

import pandas as pd

from ztb_jax.config import Config
from ztb_jax.features import causality, own, recipe
from ztb_jax.features.recipe import Features
from ztb_jax.training import evaluate
from ztb_jax.training.progress import Reporter

CHECKED = 20_000  # first bars over which features of a user's own are checked before a run


def load_market(config: Config, reporter: Reporter) -> tuple[pd.DataFrame, Features]:
    """Every bar, and the features of every bar.

    Raises:
      UserError: they cannot be used, or features of the user's own look ahead.
    """
    reporter.phase("loading", f"{config.data.symbol} {config.data.timeframe}")
    frame = evaluate.load_frame(config)
    wanted = config.features.recipe
    reporter.phase("indicators", f"{wanted}, {len(frame):,} bars")
    features = recipe.compute(wanted, frame)
    if own.is_own(wanted):
        checked = frame.iloc[: max(CHECKED, 2 * int(features.valid.argmax()))]
        reporter.phase("causality", f"of {len(features.names)} features over {len(checked):,} bars")
        causality.require_causality(wanted, checked)
    return frame, features
