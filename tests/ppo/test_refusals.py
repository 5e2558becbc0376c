"""What PPO and its policies refuse, all findings at once and with the remedy."""

import re

import pytest

from envs import actions
from envs.single import make_single
from tests.ppo.cases import network
from ztb_jax.policies.distributions import categorical, distribution_for, multi_categorical
from ztb_jax.policies.policy import check_actions, make_policy
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo
from ztb_jax.ppo.minibatches import choose_minibatching

ENV, POLICY = make_single(episode_bars=32), network()
SIZES = {"num_accounts": 32, "rollout_bars": 16, "sharing": 4}


def refused(match, *, policy=POLICY, env=ENV, hyper=None, **options):
    sizes = {**SIZES, **{name: options.pop(name) for name in list(options) if name in SIZES}}
    with pytest.raises(ValueError, match=match):
        make_ppo(env, policy, **sizes, hyper=hyper, options=Options(**{"num_minibatches": 2, **options}))


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"num_accounts": 0}, "num_accounts must be at least 1, got 0"),
        ({"sharing": 0}, "sharing must be at least 1, got 0"),
        ({"rollout_bars": 0}, "rollout_bars must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"num_minibatches": -1}, "num_minibatches must be at least 1, got -1"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"num_accounts": 30}, "num_accounts (30) must be a multiple of sharing (4)"),
        ({"rollout_bars": 12}, "episode_bars (32) must be a multiple of rollout_bars (12)"),
        ({"optimizer": "sgd"}, "there is no optimizer 'sgd': take one of adam, muon"),
        ({"advantage": "rank"}, "there is no advantage 'rank': take one of minibatch, batch, none"),
        ({"kl_rule": "penalty"}, "there is no kl_rule 'penalty': take one of stop, adapt"),
        (
            {"shuffle": "sorted"},
            "there is no shuffle 'sorted': take one of auto, accounts, segments, full, affine",
        ),
        ({"num_minibatches": 3}, "3 minibatches divide neither 4 accounts of a group nor 8 groups"),
        ({"num_minibatches": 3, "shuffle": "accounts"}, "3 minibatches do not divide 4 accounts units"),
        ({"num_minibatches": 3, "shuffle": "segments"}, "3 minibatches do not divide 8 segments units"),
        ({"num_minibatches": 3, "shuffle": "full"}, "3 minibatches do not divide 512 full units"),
        ({"num_minibatches": 3, "shuffle": "affine"}, "3 minibatches do not divide 512 affine units"),
        ({"accumulate": 3}, "accumulate (3) does not divide a minibatch of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sizes_and_options(changes, finding):
    refused(re.escape(finding), **changes)


def test_a_rollout_off_the_grid_of_a_memory():
    refused(r"rollout_bars \(16\) must be a multiple of grid \(12\)", policy=network(encoder="gru", grid=12))


@pytest.mark.parametrize("shuffle", ["full", "affine"])
def test_a_memory_torn_apart(shuffle):
    refused(f"shuffle '{shuffle}' tears apart what a memory needs", policy=network(memory=2), shuffle=shuffle)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1e-4),
        ("learning_rate", float("inf")),
        ("gamma", 1.1),
        ("gamma", -0.1),
        ("lam", float("nan")),
        ("clip", -0.2),
        ("value_clip", -1.0),
        ("value_weight", -0.5),
        ("entropy_weight", float("nan")),
        ("max_grad_norm", -1.0),
        ("weight_decay", -0.1),
        ("target_kl", -0.1),
        ("beta1", 1.0),
        ("beta2", 1.0),
        ("beta2", 2.0),
        ("epsilon", -1e-5),
        ("learning_rate_schedule", ()),
        ("entropy_schedule", ()),
        ("clip_schedule", (1.0, float("nan"))),
        ("epsilon", float("inf")),
    ],
)
def test_numbers_out_of_range(name, value):
    refused(f"^{name} ", hyper=Hyper(**{name: value}))


def test_numbers_at_the_ends_of_their_ranges():
    ends = Hyper(learning_rate=0.0, gamma=1.0, lam=0.0, clip=0.0, max_grad_norm=float("inf"), beta1=0.0)
    make_ppo(ENV, POLICY, **SIZES, hyper=ends, options=Options(num_minibatches=2))


def test_all_findings_at_once():
    with pytest.raises(ValueError, match="gamma") as refusal:
        make_ppo(
            ENV,
            POLICY,
            num_accounts=30,
            sharing=4,
            rollout_bars=12,
            hyper=Hyper(gamma=2.0, clip=-1.0),
            options=Options(epochs=0, optimizer="sgd", kl_rule="none"),
        )
    assert len(str(refusal.value).split("; ")) == 7


def test_minibatches_of_a_rule_that_is_not_there():
    with pytest.raises(ValueError, match="there is no shuffle 'random'"):
        choose_minibatching(num_groups=4, sharing=4, rollout_bars=4, num_minibatches=2, shuffle="random")


GRID = actions.grid(sizes=(0.5, 1.0), flat=False)


@pytest.mark.parametrize(
    ("space", "family", "finding"),
    [
        (actions.levels(), categorical(4), "4 actions and the environment 3"),
        (GRID, categorical(5), r"shape \(\) and the environment's \(2,\)"),
        (GRID, multi_categorical((3, 3)), "6 actions and the environment 5"),
        (actions.continuous(), categorical(3), "continuous"),
        (actions.levels((0.0, 1.0)), distribution_for(actions.continuous()), "choices"),
        (actions.continuous(), multi_categorical((3, 3)), r"shape \(2,\) and the environment's \(\)"),
    ],
)
def test_actions_of_another_kind(space, family, finding):
    policy = network(num_actions=None, distribution=family)
    with pytest.raises(ValueError, match=finding):
        check_actions(policy, make_single(actions=space))


def test_actions_that_fit():
    for space in (actions.levels(), GRID, actions.continuous()):
        for name in ("auto",) if space.sizes else ("squashed_gaussian", "beta"):
            policy = network(num_actions=None, distribution=distribution_for(space, name))
            check_actions(policy, make_single(actions=space))


@pytest.mark.parametrize(
    ("changes", "findings"),
    [
        ({"encoder": "lstm"}, ["there is no encoder 'lstm': take one of window, recurrence, gru, attention"]),
        ({"encoder": "attention", "width": 9}, ["attention shares width (9) among 4 heads: take 12"]),
        ({"num_actions": None}, ["give either num_actions or distribution"]),
        ({"distribution": categorical(3)}, ["give either num_actions or distribution"]),
        ({"encoder": "cnn", "num_actions": None}, ["there is no encoder 'cnn'", "give either num_actions"]),
        ({"lookback": 0}, ["lookback must be at least 1, got 0"]),
        (
            {"width": 0, "memory": -1},
            ["width must be at least 1, got 0", "memory must be at least 0, got -1"],
        ),
        ({"grid": 0}, ["grid must be at least 1, got 0"]),
        ({"num_features": 0}, ["num_features must be at least 1, got 0"]),
    ],
)
def test_policies_that_cannot_be_made(changes, findings):
    sizes = {"num_features": 1, "account_size": 2, "num_actions": 3, **changes}
    with pytest.raises(ValueError, match=".*".join(map(re.escape, findings))):
        make_policy(**sizes)
