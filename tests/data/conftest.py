"""Small files of bars, good and bad."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ztb_jax.data.synthetic import gbm


@pytest.fixture
def good() -> pd.DataFrame:
    """200 sound daily bars."""
    return gbm(0, 200, timeframe="1d")


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    """Write text, bytes or a frame (as CSV) to a new file; its path."""

    def write(content: str | bytes | pd.DataFrame, name: str = "bars.csv", **options) -> Path:
        path = tmp_path / name
        if isinstance(content, pd.DataFrame):
            content = content.to_csv(**options)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
