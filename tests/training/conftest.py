"""A run that nobody stopped, and one that was."""

import pytest

from tests.training.resuming import stopped, train
from ztb_jax.runs import directory


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> directory.RunDirectory:
    root = tmp_path_factory.mktemp("whole")
    assert train(root, "whole") == 0
    return directory.find(root / "whole")


@pytest.fixture
def half(tmp_path, monkeypatch) -> directory.RunDirectory:
    return stopped(tmp_path, "half", 2, monkeypatch)
