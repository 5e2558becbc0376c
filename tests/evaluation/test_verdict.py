"""Every case of the verdict, word for word where a reader could be misled."""

import pytest

from ztb_jax.evaluation.verdict import CAVEAT, verdict_sentence


def metrics(total_return, **changes):
    return {
        "total_return": total_return, "max_drawdown": 0.1, "num_trades": 20.0, "exposure": 0.6,
        "net_exposure": 0.1, "ruined": 0.0,
    } | changes  # fmt: skip


MARKET = metrics(0.124, num_trades=1.0, exposure=1.0, net_exposure=1.0)


def verdict(policy, market=MARKET, **others):
    return verdict_sentence({"policy": policy, "buy_and_hold": market} | others)


def test_does_not_beat():
    assert verdict(metrics(0.031)) == (
        "Did not beat buy-and-hold on the test slice: +3.1 % against +12.4 % net of costs."
    )


def test_beats_and_says_what_that_is_worth():
    assert verdict(metrics(0.2)) == (
        "Beat buy-and-hold on the test slice: +20.0 % against +12.4 % net of costs. "
        "One slice is not evidence of an edge."
    )


def test_a_smaller_loss_is_still_a_loss():
    sentence = verdict(metrics(-0.02), metrics(-0.1, net_exposure=1.0))
    assert sentence.startswith("Beat buy-and-hold on the test slice: −2.0 % against −10.0 % net of costs.")
    assert CAVEAT in sentence
    assert sentence.endswith("It still lost money.")


@pytest.mark.parametrize(("name", "why"), [("train", "trained"), ("validation", "chosen")])
def test_a_slice_that_made_the_policy_judges_nothing(name, why):
    sentence = verdict_sentence({"policy": metrics(3.5), "buy_and_hold": MARKET}, slice_name=name)
    assert sentence == (
        f"No judgement, the policy was {why} on these bars: it made +350.0 % on the {name} slice and "
        "buy-and-hold +12.4 % net of costs."
    )


def test_the_slice_is_named():
    sentence = verdict_sentence({"policy": metrics(0.0), "buy_and_hold": MARKET}, slice_name="second test")
    assert "on the second test slice" in sentence
    assert "0.0 % against" in sentence
    assert "+0.0 %" not in sentence


def test_no_trades():
    sentence = verdict(metrics(0.0, num_trades=0.0, exposure=0.0, net_exposure=0.0))
    assert sentence == "Did not trade on the test slice: it stayed flat, 0.0 % against +12.4 % net of costs."


@pytest.mark.parametrize("policy", [metrics(-0.97, ruined=1.0), metrics(-1.0)])
def test_ruined(policy):
    sentence = verdict(policy)
    assert sentence.startswith("Ruined on the test slice: the account lost ")
    assert sentence.endswith("buy-and-hold made +12.4 % net of costs.")


def test_ruin_comes_before_every_other_verdict():
    assert verdict(metrics(-0.97, ruined=1.0, num_trades=0.0)).startswith("Ruined")
    assert verdict(metrics(-1.0), metrics(-1.0)).startswith("Ruined")


def test_buy_and_hold_in_disguise():
    sentence = verdict(dict(MARKET))
    assert sentence.startswith("Buy-and-hold in disguise on the test slice")
    assert "+12.4 % net of costs" in sentence


@pytest.mark.parametrize("name", ["total_return", "max_drawdown", "num_trades", "exposure", "net_exposure"])
def test_a_disguise_agrees_in_everything(name):
    assert "in disguise" not in verdict(MARKET | {name: MARKET[name] + 0.01})


def test_nearly_buy_and_hold():
    sentence = verdict(metrics(0.13, num_trades=3.0, exposure=0.97, net_exposure=0.97))
    assert sentence.endswith("It was long almost all the time, close to buy-and-hold.")
    assert "close to buy-and-hold" not in verdict(metrics(0.13, exposure=0.97, net_exposure=0.9))


def test_level_with_buy_and_hold():
    assert verdict(metrics(0.12402)).startswith("Level with buy-and-hold on the test slice: +12.40 % against")


def test_a_narrow_result_shows_the_digits_that_decide():
    assert "+12.43 % against +12.40 %" in verdict(metrics(0.1243))
    assert verdict(metrics(0.1237)).startswith("Did not beat")


def test_mostly_flat():
    assert verdict(metrics(0.01, exposure=0.04)).endswith(
        "It was mostly flat: the average exposure was 4.0 % of equity."
    )


def test_worse_than_random():
    assert verdict(metrics(0.01), random=metrics(0.05)).endswith("A random policy did better (+5.0 %).")
    assert "random" not in verdict(metrics(0.06), random=metrics(0.05))


def test_refusals():
    with pytest.raises(ValueError, match="buy_and_hold are missing"):
        verdict_sentence({"policy": metrics(0.1)})
    with pytest.raises(ValueError, match="total_return is undefined"):
        verdict(metrics(None))
