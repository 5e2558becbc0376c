"""Configuration: every source, precedence, and every mistake told at once with its place."""

import dataclasses
import inspect
import json

import pytest

from ztb_jax.cli.train import parse
from ztb_jax.config import Config, as_dict, flat, resolve
from ztb_jax.errors import ConfigError
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo
from ztb_jax.presets import PRESETS


def findings(tmp_path=None, text=None, environ=None, flags=None):
    file = None
    if text is not None:
        file = tmp_path / "run.yaml"
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(file=file, environ=environ or {}, flags=flags or {})
    return caught.value.findings


def test_defaults_are_consistent():
    assert resolve(environ={}) == Config()
    assert json.loads(json.dumps(as_dict(Config())))["ppo"]["num_accounts"] == 1024


def test_flag_beats_variable_beats_file_beats_default(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("ppo: {gamma: 0.5, lam: 0.5, clip: 0.5}\n")
    config = resolve(
        file=file,
        environ={"ZTB_PPO__LAM": "0.6", "ZTB_PPO__CLIP": "0.6", "HOME": "/"},
        flags={"ppo.clip": 0.7},
    )
    assert (config.ppo.gamma, config.ppo.lam, config.ppo.clip) == (0.5, 0.6, 0.7)
    assert config.ppo.epochs == Config().ppo.epochs


def test_yaml_reads_exponents_that_yaml_takes_for_text(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("ppo: {learning_rate: 3e-4}\nrun: {patience_windows: 5}\n")
    config = resolve(file=file, environ={})
    assert config.ppo.learning_rate == 3e-4
    assert config.run.patience_windows == 5


def test_all_mistakes_of_a_file_are_told_at_once_with_suggestions(tmp_path):
    text = "ppo: {num_acounts: 5, epochs: -1, gamma: high}\nenvs: {}\ndata: 3\n"
    told = "\n".join(findings(tmp_path, text))
    for words in (
        "ppo.num_acounts: unknown key; did you mean num_accounts?",
        "ppo.epochs",
        "got -1",
        "got 'high'",
    ):
        assert words in told
    assert "envs: unknown key; did you mean env?" in told
    assert "data: must be a section with keys symbol" in told
    assert "run.yaml" in told


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ZTB_PPO__GAMA": "1"}, "ZTB_PPO__GAMA is not known; did you mean ZTB_PPO__GAMMA?"),
        (
            {"ZTB_PPO__GAMMA": "2"},
            "environment variable ZTB_PPO__GAMMA: input should be less than or equal to 1",
        ),
        ({"ZTB_SEED": "-1"}, "environment variable ZTB_SEED"),
        ({"ZTB_ENV__FEE_RATE": "nan"}, "environment variable ZTB_ENV__FEE_RATE"),
    ],
)
def test_a_wrong_variable_is_named(environ, words):
    assert any(words in line for line in findings(environ=environ)), findings(environ=environ)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"ppo.num_accounts": 0}, "flag --ppo.num_accounts"),
        ({"ppo.num_accounts": 1001}, "take 1008"),
        ({"env.episode_bars": 100}, "take 128"),
        ({"ppo.num_minibatches": 3}, "of accounts: take 2"),
        ({"ppo.num_minibatches": 4, "ppo.sharing": 2, "ppo.num_accounts": 4}, "of accounts: take 2"),
        ({"data.train": 0.7}, "add up to 1.1"),
        ({"env.levels": [1.0]}, "at least two levels"),
        ({"env.levels": [1.0, 1.0, 0.0]}, "none twice"),
        ({"run.total_env_steps": -5}, "got -5"),
    ],
)
def test_sizes_that_cannot_be_are_refused_with_a_remedy(flags, words):
    assert any(words in line for line in findings(flags=flags)), findings(flags=flags)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "not valid YAML"), ("- 1", "must be a mapping"), ("\x00", "not valid YAML")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, words):
    assert words in findings(tmp_path, text)[0]


def test_a_key_that_stands_twice_is_refused(tmp_path):
    told = findings(tmp_path, "ppo: {gamma: .5}\nseed: 1\nppo: {lam: .5}\n")
    assert "'ppo' stands a second time in line 3" in told[0]


def test_yaml_that_refers_to_itself_is_refused(tmp_path):
    assert (
        "not valid YAML" in findings(tmp_path, "&a [*a]")[0]
        or "must be a mapping" in findings(tmp_path, "&a [*a]")[0]
    )
    assert "not valid YAML" in findings(tmp_path, "a: " + "[" * 5000)[0]


def test_dates_and_names_of_digits_are_texts_wherever_they_come_from(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data: {start: 2015-01-01}\nrun: {id: 20260101}\n")
    config = resolve(file=file, environ={"ZTB_DATA__END": "2016-01-01", "ZTB_DATA__SYMBOL": "NO"})
    assert (config.data.start, config.data.end) == ("2015-01-01", "2016-01-01")
    assert (config.run.id, config.data.symbol) == ("20260101", "NO")


def test_a_variable_gives_numbers_lists_flags_and_none():
    environ = {
        "ZTB_PPO__LEARNING_RATE": "3e-4",
        "ZTB_ENV__LEVELS": "[0, 0.5, 1]",
        "ZTB_POLICY__SHARED_TORSO": "false",
        "ZTB_PPO__VALUE_CLIP": "none",
        "ZTB_SEED": "7",
    }
    config = resolve(environ=environ)
    assert config.env.levels == (0.0, 0.5, 1.0)
    assert (config.seed, config.policy.shared_torso, config.ppo.value_clip) == (7, False, None)
    assert config.ppo.learning_rate == 3e-4


@pytest.mark.parametrize(
    "key", ["ppo.num_accounts", "policy.width", "data.synthetic_bars", "run.total_env_steps"]
)
def test_sizes_beyond_any_machine_are_refused(key):
    assert any("less than or equal" in line for line in findings(flags={key: 10**18}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration file"):
        resolve(file=tmp_path / "absent.yaml", environ={})


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert resolve(file=tmp_path / "empty.yaml", environ={}) == Config()


def test_a_resolved_configuration_resolves_to_itself():
    config = resolve(environ={}, flags={"ppo.gamma": 0.9, "env.levels": (0.0, 1.0), "run.id": "x"})
    assert resolve(environ={}, flags=flat(config)) == config


def test_the_learner_has_the_same_defaults_as_the_configuration():
    sizes = {
        name: parameter.default
        for name, parameter in inspect.signature(make_ppo).parameters.items()
        if isinstance(parameter.default, int)
    }
    numbers = {field.name: getattr(Hyper(), field.name) for field in dataclasses.fields(Hyper)}
    defaults = {**sizes, **numbers, **Options()._asdict()}
    for field in dataclasses.fields(Config().ppo):
        assert defaults.pop(field.name) == getattr(Config().ppo, field.name), field.name
    assert set(defaults) == {"axis_name"}, "what the learner takes and no setting gives"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_lies_under_everything_that_is_set(name, tmp_path):
    config = resolve(environ={}, flags={"preset": name})
    assert flat(config) == flat(Config()) | PRESETS[name] | {"preset": name}
    file = tmp_path / "some.yaml"
    file.write_text(f"preset: {name}\nppo: {{gamma: 0.5}}\n")
    assert resolve(file=file, environ={}).ppo.gamma == 0.5
    assert resolve(file=file, environ={"ZTB_PPO__GAMMA": "0.6"}).ppo.gamma == 0.6
    assert resolve(file=file, environ={}, flags={"ppo.gamma": 0.7}).ppo.gamma == 0.7
    assert resolve(file=file, environ={}).ppo.lam == 0.95


def test_presets_have_the_numbers_of_their_documents():
    ztb, mtquant, asteroid = (resolve(environ={}, flags={"preset": name}) for name in PRESETS)

    def sizes(config):
        steps = config.ppo.num_accounts * config.ppo.rollout_bars
        return config.ppo.num_accounts, steps, steps // config.ppo.num_minibatches, config.ppo.epochs

    assert sizes(ztb) == (1, 2048, 64, 10)
    assert sizes(mtquant) == (8, 2048, 256, 10)
    assert sizes(asteroid) == (8, 1024, 256, 4)
    for config in (ztb, mtquant, asteroid):
        assert (config.ppo.learning_rate, config.ppo.gamma, config.ppo.lam) == (3e-4, 0.99, 0.95)
    assert (mtquant.env.fee_rate, mtquant.env.max_position, mtquant.env.stop_loss) == (0.003, 0.1, 0.02)
    assert (asteroid.policy.width, asteroid.ppo.value_clip) == (256, 0.2)


def test_an_unknown_preset_is_told_with_those_there_are():
    assert any("'ztb', 'mtquant' or 'asteroid'" in line for line in findings(flags={"preset": "fast"}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"policy.encoder": "attention", "policy.width": 30}, "take 32"),
        ({"policy.memory": 8, "ppo.shuffle": "full"}, "in a row"),
        ({"ppo.kl_rule": "adapt"}, "read only with ppo.target_kl"),
        ({"ppo.accumulate": 7}, "does not divide a minibatch of 16384"),
        ({"ppo.accumulate": 3, "policy.memory": 8}, "does not divide a minibatch of 2"),
        ({"ppo.shuffle": "accounts", "ppo.sharing": 2}, "does not divide the 2 accounts of a group"),
        ({"policy.head": "beta", "env.stop_loss": 0.1}, "asks for any exposure"),
    ],
)
def test_settings_of_the_learner_that_do_not_fit_are_told_with_a_remedy(flags, words):
    assert any(words in line for line in findings(flags=flags)), findings(flags=flags)


def test_flags_go_over_the_preset_of_a_flag():
    config = parse(["--preset", "asteroid", "--ppo.gamma", "0.5"])
    assert (config.preset, config.ppo.gamma, config.policy.width) == ("asteroid", 0.5, 256)
