"""PPO in float64 NumPy, with its gradient by hand: windows, net, GAE, loss, clipping, Adam.

It shares no line with the library. Weights are trees of arrays as the library has them, of a shared torso.
"""

import jax
import numpy as np


def as_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def gae(rollout, gamma, lam):
    """[T, G, S] advantages of a rollout that only terminations cut."""
    value, advantage = rollout["value"], np.zeros_like(rollout["value"])
    later, following = np.zeros(value.shape[1:]), rollout["final_value"]
    for t in reversed(range(len(value))):
        goes_on = 1.0 - rollout["terminated"][t]
        delta = rollout["reward"][t] + gamma * goes_on * following - value[t]
        later = delta + gamma * lam * goes_on * later
        advantage[t], following = later, value[t]
    return advantage


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def gru(cell, memory, seen):
    """Cho et al. 2014, the reset after the product."""

    def dense(name, x):
        return x @ cell[name]["kernel"] + cell[name].get("bias", 0.0)

    reset = sigmoid(dense("ir", seen) + dense("hr", memory))
    update = sigmoid(dense("iz", seen) + dense("hz", memory))
    new = np.tanh(dense("in", seen) + reset * dense("hn", memory))
    return (1.0 - update) * new + update * memory


def windows(features, bars, lookback):
    """[..., lookback * F] rows up to and with `bars` [...], oldest first."""
    rows = bars[..., None] - np.arange(lookback)[::-1]
    return features[rows].reshape(*bars.shape, -1)


def context(params, window):
    layer = params["encoder"]["params"]["window"]
    return window @ layer["kernel"] + layer["bias"]


def remembered(params, memory, fresh, contexts, account):
    """[T, ..., H] memories of accounts [T, ..., K] that forget where `fresh` [T, ...]."""
    told = []
    for t in range(len(account)):
        memory = gru(
            params["memory"]["params"],
            np.where(fresh[t][..., None], 0.0, memory),
            np.concatenate([contexts[t], account[t]], -1),
        )
        told.append(memory)
    return np.stack(told)


def head(params, contexts, view):
    """Layers of the head, for [N, D] and [N, K]."""
    layers = params["head"]["params"]
    first = np.tanh(contexts + view @ layers["account"]["kernel"])
    second = np.tanh(first @ layers["torso"]["kernel"] + layers["torso"]["bias"])
    outputs = second @ layers["outputs"]["kernel"] + layers["outputs"]["bias"]
    return first, second, outputs[:, :-1], outputs[:, -1]


def objective(logits, value, batch, hyper):
    """Loss, and its derivatives by logits and value."""
    count = len(value)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    probs, rows = np.exp(log_probs), np.arange(count)
    ratio = np.exp(log_probs[rows, batch["action"]] - batch["log_prob"])
    advantage = batch["advantage"]
    plain = ratio * advantage
    bounded = np.clip(ratio, 1 - hyper.clip, 1 + hyper.clip) * advantage
    chosen = np.zeros_like(probs)
    chosen[rows, batch["action"]] = 1.0
    by_logits = (-np.where(plain <= bounded, plain, 0.0) / count)[:, None] * (chosen - probs)
    error, slope = (value - batch["target"]) ** 2, value - batch["target"]
    if hyper.value_clip is not None:
        moved = value - batch["value"]
        near = batch["value"] + np.clip(moved, -hyper.value_clip, hyper.value_clip)
        far = (near - batch["target"]) ** 2
        inside = np.abs(moved) < hyper.value_clip
        slope = np.where(far > error, np.where(inside, near - batch["target"], 0.0), slope)
        error = np.maximum(far, error)
    entropy = -(probs * log_probs).sum(1)
    by_logits += hyper.entropy_weight / count * probs * (log_probs + entropy[:, None])
    loss = -np.minimum(plain, bounded).mean() + hyper.value_weight * 0.5 * error.mean()
    return loss - hyper.entropy_weight * entropy.mean(), by_logits, hyper.value_weight * slope / count


def gradient(params, batch, hyper):
    """The loss and its gradient, for windows [N, L F] and accounts [N, K]."""
    layers = params["head"]["params"]
    first, second, logits, value = head(params, context(params, batch["window"]), batch["account"])
    loss, by_logits, by_value = objective(logits, value, batch, hyper)
    by_outputs = np.concatenate([by_logits, by_value[:, None]], 1)
    by_second = by_outputs @ layers["outputs"]["kernel"].T * (1 - second**2)
    by_first = by_second @ layers["torso"]["kernel"].T * (1 - first**2)

    def dense(x, by):
        return {"kernel": x.T @ by, "bias": by.sum(0)}

    return loss, {
        "encoder": {"params": {"window": dense(batch["window"], by_first)}},
        "head": {
            "params": {
                "account": {"kernel": batch["account"].T @ by_first},
                "torso": dense(first, by_second),
                "outputs": dense(second, by_outputs),
            }
        },
    }


def minibatches(rollout, order, how, hyper, features, lookback):
    """Flat float64 batches of one epoch, advantages normalised as `how` says."""
    plain = {name: np.asarray(leaf) for name, leaf in vars(rollout).items() if leaf is not None}
    plain = {
        name: leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf for name, leaf in plain.items()
    }
    advantage = gae(plain, hyper.gamma, hyper.lam)
    target = advantage + plain["value"]
    if how.advantage == "batch":
        advantage = (advantage - advantage.mean()) / advantage.std()
    bars = plain["start"][None, :, None] + np.arange(len(advantage))[:, None, None]
    window = windows(features, np.broadcast_to(bars, advantage.shape), lookback)
    whole = plain | {"advantage": advantage, "target": target, "window": window}
    names = ("window", "account", "action", "log_prob", "value", "advantage", "target")
    for units in order.reshape(how.cut.total, -1):
        axis = {"accounts": 2, "segments": 1}[how.cut.shuffle]
        batch = {name: np.take(whole[name], units, axis=axis) for name in names}
        count = batch["value"].size
        batch = {
            name: leaf.reshape((count,) if leaf.size == count else (count, -1))
            for name, leaf in batch.items()
        }
        if how.advantage == "minibatch":
            dealt = batch["advantage"]
            batch["advantage"] = (dealt - dealt.mean()) / dealt.std()
        yield batch


def adam(params, moments, grads, count, hyper):
    """Weights and moments after step number `count`, from 1 on; gradients clipped, decay decoupled."""
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(grads)))
    scale, b1, b2 = min(1.0, hyper.max_grad_norm / norm), hyper.beta1, hyper.beta2
    mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * scale * g, moments[0], grads)
    square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * (scale * g) ** 2, moments[1], grads)

    def moved(weight, m, v):
        change = (m / (1 - b1**count)) / (np.sqrt(v / (1 - b2**count)) + hyper.epsilon)
        if hyper.weight_decay is not None and weight.ndim > 1:
            change = change + hyper.weight_decay * weight
        return weight - hyper.learning_rate * change

    return jax.tree.map(moved, params, mean, square), (mean, square)


def update(params, rollout, features, *, orders, how, hyper, lookback, taken=lambda step: True):
    """What an update makes of weights, by the gradient steps that are `taken`.

    Returns:
      Weights, moments (mean, square) and the losses of all steps.
    """
    params, features = as_float64(params), np.asarray(features, np.float64)
    zeros = jax.tree.map(np.zeros_like, params)
    moments, count, losses = (zeros, zeros), 0, []
    for order in orders:
        for batch in minibatches(rollout, order, how, hyper, features, lookback):
            loss, grads = gradient(params, batch, hyper)
            losses.append(loss)
            if taken(len(losses) - 1):
                count += 1
                params, moments = adam(params, moments, grads, count, hyper)
    return params, moments, losses
