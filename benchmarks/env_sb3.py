"""Does Stable-Baselines3's PPO train on our environments, and does it learn there? 50,000 steps on each."""

from benchmarks.harness import Row
from benchmarks.peers import wire

NAMES = ("Trading-v0", "TradingOrders-v0", "TradingPortfolio-v0")
STEPS = 50_000


def rows() -> list[Row]:
    """A row for each environment; none, and a line that says why, where SB3's environment is absent."""
    if not wire.PYTHON.is_file():
        print(f"SB3 on {', '.join(NAMES)}: not measured; `make peers` builds what it needs")
        return []
    with wire.worker("benchmarks.peers.sb3_trading") as ask:
        peer = ask("about")["version"]
        return [_row(name, peer, ask("train", task=name, steps=STEPS)) for name in NAMES]


def _row(name: str, peer: str, told: dict) -> Row:
    learnt = f"{told['first']:+.3f} in the first quarter of the episodes, {told['last']:+.3f} in the last"
    return Row(
        f"SB3 {peer} PPO on {name}",
        told["steps"] / told["seconds"] / 1e3,
        "k steps/s",
        note=f"{told['steps']:,} steps; mean log growth {learnt}",
    )
