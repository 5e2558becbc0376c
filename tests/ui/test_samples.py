"""The sample runs that the tests of the pages read are what a training run promises to write."""

import json
from functools import cache

import jsonschema
import pytest

from tests.ui import samples
from ztb_jax.runs import artifacts, directory, replays


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return samples.make_run(tmp_path_factory.mktemp("runs"), "made", replay_steps=(600, 40))


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(artifacts.schema(name))


def check(name: str, value) -> None:
    validator(name).validate(json.loads(json.dumps(value)))


def test_every_file_of_a_sample_is_as_its_schema_says(run):
    for name, path in (
        ("config", run.config),
        ("run_metadata", run.metadata),
        ("replay_index", run.replay_index),
        ("evaluation", run.evaluation),
    ):
        check(name, directory.read_json(path))
    for row in directory.read_windows(run.windows):
        check("window_row", row)
    for entry in replays.read_index(run):
        for frame in replays.read_frames(run.path / entry["replay_path"]):
            check("replay_frame", frame)


def test_a_sample_that_grows_stays_one(tmp_path):
    run = samples.make_run(tmp_path, "grows", windows=3, status="running", finished_at=None)
    assert samples.grow(run) == 3
    check("run_metadata", directory.read_json(run.metadata))
    assert len(directory.read_windows(run.windows)) == 4
    samples.finish(run)
    check("run_metadata", directory.read_json(run.metadata))
