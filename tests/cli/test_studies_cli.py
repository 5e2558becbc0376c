"""Mistakes in the commands of studies: one line a finding, status 2, and nothing left behind."""

import json
import shutil

import pytest

from tests.training.studying import command, study_in
from ztb_jax.cli.main import run

SHORT = ("--learner", "random", "--run.total-env-steps", "512", "--seeds", "1")


def left(root) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.name != "tiny.yaml")


MISTAKES = [
    (("--vary", "ppo.nope=1"), "there is no setting 'ppo.nope'"),
    (("--vary", "ppo.gamma=abc"), "input should be a valid number"),
    (("--vary", "ppo.gamma=2.0"), "ppo.gamma"),
    (("--vary", "ppo.epochs=1.5"), "ppo.epochs"),
    (("--vary", "seed=1,2"), "all trials share seed"),
    (("--vary", "ppo.gamma=0.9", "--vary", "ppo.gamma=0.8"), "stands a second time"),
    (("--seeds", "0"), "--seeds is 0: train at least one"),
    (("--id", "a/b"), "cannot name a directory"),
    (("--id", "taken"), "choose another --id"),
    (("--run.devices", "2"), "run.devices must be 1"),
    (("--run.patience-windows", "2"), "run.patience_windows ends runs"),
    (("--run.window-env-steps", "64"), "both say how long a window is"),
    (("--gates.baseline", "0.0"), "gates.baseline watches a run between its windows"),
    (("--data.symbol", "NOWHERE"), "NOWHERE"),
    (("--features.recipe", "nothing"), "unknown feature recipe"),
    (("--run.root", "{root}/tiny.yaml/x"), "--run.root"),
    (("--run.ledger", "{root}/tiny.yaml/x"), "record of scorings"),
    (("--nonsense", "1"), "nonsense"),
    (("--seed", "4294967295", "--seeds", "2"), "is beyond 2^32 - 1"),
    (("--allow-drift",), "--allow-drift is of --resume"),
]
WALKS = [
    (("--vary", "ppo.gamma=0.1..0.9"), "a grid needs values"),
    (("--folds", "0"), "folds is 0"),
    (("--folds", "2000"), "too few for 2000 folds"),
    (("--folds", "100"), "a judgement needs 33"),
    (("--train-bars", "20"), "bars of an episode"),
    (("--test-bars", "5"), "a judgement needs 33"),
    (("--validation", "1.5"), "validation is 1.5"),
    (("--validation", "0", "--vary", "env.fee_rate=0.1,0.2"), "nothing can choose among configurations"),
    (("--purge", "-1"), "purge is -1"),
    (("--groups", "4"), "--scheme anchored does not read --groups"),
    (("--scheme", "rolling", "--held-out", "1"), "--scheme rolling does not read --held-out"),
    (("--scheme", "combinatorial", "--folds", "4"), "--scheme combinatorial does not read --folds"),
    (("--scheme", "combinatorial", "--groups", "3", "--held-out", "3"), "held_out is 3 of 3"),
    (("--scheme", "combinatorial", "--data.embargo-bars", "0"), "an embargo of at least 4"),
    (("--scheme", "sideways"), "invalid choice"),
    (("--run.id", "x"), "name a study with --id"),
]
SWEEPS = [
    ((), "a sweep needs something to vary"),
    (("--vary", "env.fee_rate=0.1,0.2", "--points", "3"), "--method grid does not read --points"),
    (("--vary", "env.fee_rate=0.1..0.2", "--method", "random", "--batch", "3"), "does not read --batch"),
    (("--vary", "env.fee_rate=0.1..0.2", "--method", "random", "--points", "0"), "--points is 0"),
    (("--vary", "ppo.gamma=0.5..3.0", "--method", "random", "--points", "9"), "ppo.gamma"),
    (("--vary", "ppo.gamma=0.5..3.0", "--method", "optuna"), "ppo.gamma 3"),
    (("--vary", "env.volatility_window=50,300", "--env.volatility-target", "0.2"), "would have other slices"),
    (("--vary", "env.fee_rate=0.1,0.2", "--run.id", "ran"), "choose another --run.id"),
]


@pytest.mark.parametrize(
    ("name", "flags", "told"),
    [
        *(("walkforward", *each) for each in MISTAKES),
        *(("sweep", *each) for each in MISTAKES if "taken" not in each[0]),
        *(("walkforward", *each) for each in WALKS),
        *(("sweep", *each) for each in SWEEPS),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(tmp_path, capsys, name, flags, told):
    for folder in ("studies/taken", "ran"):
        (tmp_path / folder).mkdir(parents=True)
    before = left(tmp_path)
    needed = ("--vary", "env.fee_rate=0.1") if name == "sweep" and flags and "--vary" not in flags else ()
    try:
        status = command(tmp_path, name, *needed, *(flag.format(root=tmp_path) for flag in flags))
    except SystemExit as ended:  # of a flag that does not parse
        status = ended.code
    shown = capsys.readouterr().err
    assert status == 2
    assert told in " ".join(shown.split()).replace("│ ", "").replace(" │", "")
    assert "Traceback" not in shown
    assert left(tmp_path) == before


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("done")
    assert command(root, "walkforward", *SHORT, "--folds", "2", "--id", "w") == 0
    return root


@pytest.fixture
def study(done, tmp_path):
    """A copy that a test may damage."""
    return study_in(shutil.copytree(done, tmp_path / "runs"), "w")


def resumed(study, *flags: str, name: str = "walkforward") -> int:
    return run([name, "--resume", str(study.path), *flags], prog="ztb")


def test_a_resume_takes_no_settings(study, capsys):
    for flags in (("--folds", "3"), ("--seed", "4"), ("--vary", "ppo.gamma=0.5"), ("--id", "x")):
        with pytest.raises(SystemExit) as ended:
            resumed(study, *flags)
        assert ended.value.code == 2
        assert f"leave out {flags[0]}" in capsys.readouterr().err


def test_only_a_study_of_its_kind_is_resumed(study, tmp_path, capsys):
    assert resumed(study, name="sweep") == 2
    assert "go on with `ztb walkforward --resume`" in capsys.readouterr().err
    assert run(["walkforward", "--resume", str(tmp_path)], prog="ztb") == 2
    assert "holds no study.json" in capsys.readouterr().err


def edited(study, **changes) -> None:
    told = json.loads(study.study.read_text())
    study.study.write_text(json.dumps(told | changes))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda study: study.study.write_text("{"), "study.json is damaged"),
        (lambda study: edited(study, config={"nonsense": 1}), "nonsense"),
        (lambda study: edited(study, scheme={"folds": 2.5, "vary": []}), "study.json is damaged"),
        (lambda study: study.seal.write_text("{}"), "seal.json"),
        (
            lambda study: (study.chunks / "000-000-00000.npz").write_bytes(b"x"),
            "which trains its trials again",
        ),
        (lambda study: (study.path.parents[1] / "scored.jsonl").write_text("{}\n"), "line 1 is damaged"),
    ],
)
def test_damage_is_told_and_nothing_is_changed(study, capsys, damage, told):
    damage(study)
    before = {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()}
    assert resumed(study) == 2
    assert told in capsys.readouterr().err
    after = {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()}
    del before[study.lock], after[study.lock]
    assert after == before


def test_a_chunk_that_was_removed_is_trained_again_to_the_same_bits(study):
    path = study.chunks / "000-000-00000.npz"
    before = path.read_bytes(), study.result.read_bytes()
    path.unlink()
    assert resumed(study) == 0
    assert (path.read_bytes(), study.result.read_bytes()) == before


def test_what_the_bits_depend_on_may_not_change_unless_it_is_allowed(study, capsys):
    told = json.loads(study.seal.read_text())
    told["metadata"]["features"] = "0" * 64
    study.seal.write_text(json.dumps(told))
    assert resumed(study) == 2
    assert "seal.features was" in (shown := capsys.readouterr().err)
    assert "give --allow-drift" in shown
    assert resumed(study, "--allow-drift") == 0
    assert "drift" in capsys.readouterr().err


def test_a_study_that_another_process_writes_is_left_alone(study, capsys):
    from ztb_jax.runs import directory

    with directory.locked(study):
        assert resumed(study) == 2
    assert "is being written by process" in capsys.readouterr().err


def test_help_tells_of_every_option(capsys):
    for name in ("walkforward", "sweep"):
        with pytest.raises(SystemExit) as ended:
            run([name, "--help"], prog="ztb")
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert all(option in out for option in ("--vary", "--seeds", "--id", "--resume", "--allow-drift"))
