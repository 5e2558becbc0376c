"""What the codes of gates mean: a name, a sentence and a remedy for each failure; without jax."""

from collections.abc import Mapping
from typing import NamedTuple

HEALTHY = 0
NOT_FINITE = 1
KL_RUNAWAY = 2
ENTROPY_COLLAPSE = 3
HOLD_COLLAPSE = 4
OVERTRADING = 5
UNDERPAID = 6
OVERPAID = 7
FALLING_REWARD = 8
MEMORY = 9
SLOW_RESUME = 10
REPEATED_STEPS = 11
BELOW_BASELINE = 12
DRAWDOWN = 13
BEHIND_BUY_AND_HOLD = 14
OVERFIT = 15
OF_SURROUNDINGS = (MEMORY, SLOW_RESUME)
"""Failures of the machine, with which the run itself may go on elsewhere."""


class Verdict(NamedTuple):
    """What the code of a failure means.

    Attributes:
      name: an identifier.
      sentence: what happened.
      remedy: what to change.
    """

    name: str
    sentence: str
    remedy: str


VERDICTS: Mapping[int, Verdict] = {
    NOT_FINITE: Verdict(
        "not_finite",
        "the loss, the reward, the gradient or the weights stopped being finite numbers",
        "lower ppo.learning_rate or ppo.max_grad_norm, or compute in policy.precision float32",
    ),
    KL_RUNAWAY: Verdict(
        "kl_runaway",
        "update after update moved the policy further than gates.kl",
        "lower ppo.learning_rate or ppo.epochs, or set ppo.target_kl",
    ),
    ENTROPY_COLLAPSE: Verdict(
        "entropy_collapse",
        "the policy's entropy stayed under gates.least_entropy: it no longer explores",
        "raise ppo.entropy_weight, or let ppo.entropy_schedule fall later",
    ),
    HOLD_COLLAPSE: Verdict(
        "hold_collapse",
        "the accounts traded less than gates.least_turnover or gates.least_trades: the policy only holds",
        "raise ppo.entropy_weight, or take features that foretell more than the costs take",
    ),
    OVERTRADING: Verdict(
        "overtrading",
        "the accounts traded more than gates.most_turnover or gates.most_trades",
        "raise env.fee_rate or env.slippage to what trading costs, or set env.band",
    ),
    UNDERPAID: Verdict(
        "underpaid",
        "trades cost less than env.fee_rate, env.half_spread and env.slippage say",
        "set gates.fees to false where costs change on purpose; else the simulator is at fault, so report it",
    ),
    OVERPAID: Verdict(
        "overpaid",
        "trades cost more than env.fee_rate, env.half_spread and env.slippage say",
        "set gates.fees to false where costs change on purpose; else the simulator is at fault, so report it",
    ),
    FALLING_REWARD: Verdict(
        "falling_reward",
        "the reward falls from update to update, by more than its noise explains",
        "lower ppo.learning_rate, or raise gates.falling_reward where it is the market's noise",
    ),
    MEMORY: Verdict(
        "memory",
        "the process holds more memory than gates.memory_gb",
        "lower ppo.num_accounts or ppo.rollout_bars, or raise gates.memory_gb",
    ),
    SLOW_RESUME: Verdict(
        "slow_resume",
        "resuming took longer than gates.resume_seconds",
        "keep the compilation cache and the checkpoints on a faster disk, or raise gates.resume_seconds",
    ),
    REPEATED_STEPS: Verdict(
        "repeated_steps",
        "global steps were counted twice",
        "resume from an older checkpoint, or train anew: what was counted twice was learnt twice",
    ),
    BELOW_BASELINE: Verdict(
        "below_baseline",
        "the validation's growth did not rise above gates.baseline",
        "train a run with other features or numbers, or lower gates.baseline",
    ),
    DRAWDOWN: Verdict(
        "drawdown",
        "the validation fell further from its highest equity than gates.drawdown",
        "lower the largest of env.levels, or set env.volatility_target or env.drawdown",
    ),
    BEHIND_BUY_AND_HOLD: Verdict(
        "behind_buy_and_hold",
        "the validation grew less than buying and holding by more than gates.behind_buy_and_hold",
        "take features that foretell more, or raise gates.behind_buy_and_hold",
    ),
    OVERFIT: Verdict(
        "overfit",
        "growth in training exceeds that of the validation by more than gates.gap",
        "give more bars, a smaller policy.width or ppo.weight_decay, or stop by run.patience_windows",
    ),
}
