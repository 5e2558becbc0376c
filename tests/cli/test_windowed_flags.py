"""The flags of the windowed trainer: their defaults, what they set, and what is refused."""

import pytest

from ztb_jax.cli.windowed import parse
from ztb_jax.errors import ConfigError


def test_defaults_are_the_documented_ones():
    config, facts = parse([])
    assert (config.learner, config.seed, config.run.root, config.run.id) == ("random", 0, "runs", None)
    assert (config.run.total_env_steps, config.run.window_env_steps) == (6000, 2000)
    assert config.run.policy_every_windows == 1
    assert not config.run.flush_partial_window
    told = config.replays
    assert (told.episodes, told.max_steps, told.include_info, told.deterministic) == (0, 512, True, True)
    assert told.seed_offset == 100_000
    assert told.profit_thresholds == (100.0, 500.0, 1000.0)
    assert told.return_thresholds == (10.0, 25.0, 50.0)
    assert told.survival_thresholds == (1.0,)
    assert (config.sinks.wandb, config.sinks.wandb_project) == ("disabled", "asteroid-prospector")
    assert facts == {}
    config, facts = parse(["--trainer-backend", "puffer_ppo"])
    ppo = config.ppo
    assert (ppo.num_accounts, ppo.rollout_bars, ppo.num_minibatches, ppo.epochs) == (8, 128, 4, 4)
    assert (ppo.learning_rate, ppo.gamma, ppo.lam, ppo.clip) == (3e-4, 0.99, 0.95, 0.2)
    assert (ppo.entropy_weight, ppo.value_weight, ppo.max_grad_norm) == (0.01, 0.5, 0.5)
    assert (config.policy.width, config.policy.depth) == (256, 2)
    assert facts == {"ppo_num_workers": 4, "ppo_vector_backend": "multiprocessing"}


def test_flags_become_settings():
    replayed = ["--eval-replays-per-window", "1"]
    flags = [
        *replayed,
        "--eval-milestone-profit-thresholds", "500,100,100", "--eval-milestone-return-thresholds", "",
        "--no-eval-include-info", "--eval-policy-stochastic", "--wandb-mode", "offline", "--seed", "7",
        "--env-time-max", "64", "--eval-seed-offset", "5",
    ]  # fmt: skip
    config, _ = parse(flags)
    assert config.replays.profit_thresholds == (100.0, 500.0)
    assert config.replays.return_thresholds == ()
    assert not config.replays.include_info
    assert not config.replays.deterministic
    assert (config.sinks.wandb, config.seed, config.env.episode_bars) == ("offline", 7, 64)
    assert parse([*replayed, "--eval-include-info", "--eval-policy-deterministic"])[0].replays.include_info


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--total-env-steps", "0"], ["--total-env-steps: input should be greater than 0"]),
        (["--window-env-steps", "-1"], ["--window-env-steps: input should be greater than 0"]),
        (["--checkpoint-every-windows", "0"], ["--checkpoint-every-windows: input should be greater than 0"]),
        (["--eval-milestone-profit-thresholds", "1,x"], ["'1,x': give numbers"]),
        (
            ["--eval-milestone-return-thresholds", "-1"],
            ["--eval-milestone-return-thresholds", "greater than or"],
        ),
        (["--eval-milestone-survival-thresholds", "inf"], ["--eval-milestone-survival-thresholds", "finite"]),
        (
            ["--trainer-backend", "puffer_ppo", "--ppo-num-envs", "6", "--seed", "-1"],
            ["--ppo-num-envs 6 is not divisible by --ppo-num-workers 4", "--seed: "],
        ),
        (
            ["--trainer-backend", "puffer_ppo", "--ppo-num-workers", "0"],
            ["--ppo-num-workers 0: give 1 or more"],
        ),
        (["--ppo-update-epochs", "9"], ["--ppo-update-epochs is not read by learner random"]),
        (
            ["--eval-policy-stochastic"],
            ["--eval-policy-deterministic is read only with --eval-replays-per-window"],
        ),
    ],
)
def test_wrong_flags_are_refused_all_at_once_by_their_names(flags, told):
    with pytest.raises(ConfigError) as error:
        parse(flags)
    for part in told:
        assert part in str(error.value)


def test_serial_workers_need_not_divide():
    flags = ["--trainer-backend", "puffer_ppo", "--ppo-num-envs", "8", "--ppo-num-workers", "3"]
    _, facts = parse([*flags, "--ppo-vector-backend", "serial"])
    assert facts["ppo_num_workers"] == 3
