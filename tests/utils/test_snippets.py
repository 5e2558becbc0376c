"""The source documents' snippets run as they are written, on the page that explains them."""

import ast
import asyncio
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from tests.utils.states import same
from ztb_jax.training import run_seal
from ztb_jax.training.eval_gates import GateStatus

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "gates-seals-and-checkpoints.md"
SEEDS = ROOT.parent / "shared" / "seeds"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def run(source: str, space: dict[str, Any]) -> None:
    """Run a block, which may await."""
    code = compile(source, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, space)
        return

    async def awaited() -> None:
        await eval(code, space)

    asyncio.run(awaited())


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What the page's blocks leave behind: their names, their folder, and what they printed."""
    folder, printed = tmp_path_factory.mktemp("page"), []
    space: dict[str, Any] = {"print": lambda *words: printed.append(" ".join(map(str, words)))}
    after: dict[str, dict[str, Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_seal.get_run_seal_manager.cache_clear()
        for source in blocks(PAGE.read_text()):
            run(source, space)
            after[source.strip().splitlines()[0]] = dict(space)
    return after, folder, printed


def of(played, line: str) -> dict[str, Any]:
    """The names after the block that begins with a line."""
    return next(space for first, space in played[0].items() if first.startswith(line))


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the source documents are not beside this checkout")
def test_every_snippet_is_there_as_it_is_written():
    written = [block for page in SEEDS.glob("[01]-*.md") for block in blocks(page.read_text())]
    ours = {re.sub(r"\bztb\.", "ztb_jax.", block) for block in written if "ztb." in block}
    assert len(ours) == 4
    assert ours <= set(blocks(PAGE.read_text()))


def test_the_example_of_the_gates_does_not_halt(played):
    space = of(played, "from ztb_jax.training.eval_gates")
    assert (space["should_halt"], space["reason"]) == (False, "")
    assert {name: result.status for name, result in space["results"].items()} == {
        "memory_rss": GateStatus.PASS,
        "no_dup_steps": GateStatus.PASS,
        "reward_trend_300k": GateStatus.SKIP,
        "eval_above_baseline": GateStatus.PASS,
    }
    assert not any(line.startswith(("Auto-halt", "Training halted")) for line in played[2])


def test_the_session_runs_to_its_end_and_goes_on_from_its_file(played):
    trainer = of(played, "from ztb_jax.training.ppo_trainer")["trainer"]
    assert (trainer.is_training, trainer.halt_reason, trainer.current_step) == (True, None, 999_999)
    assert trainer.consecutive_failures == 0
    resumed = of(played, "resumed =")["resumed"]
    assert resumed.current_step == trainer.current_step
    assert resumed.rewards_history == trainer.rewards_history
    folder = played[1]
    assert (folder / "final_checkpoint.json").is_file()
    assert (folder / "checkpoints" / "ppo_trainer.json").is_file()


def test_its_callback_prints_why_it_halts(played):
    of(played, "from ztb_jax.training.ppo_trainer")["halt_callback"]("memory")
    assert played[2].pop() == "Training halted: memory"


def test_the_seal_keeps_what_it_was_given_and_validates_by_booleans(played):
    space = of(played, "from ztb_jax.training import")
    assert (space["seal"].seed, space["seal"].config["learning_rate"]) == (42, 0.001)
    assert space["seal"].metadata == {"experiment": "baseline"}
    assert {type(value) for value in space["validation"].values()} == {bool}
    assert space["validation"]["python_version"]
    mismatch = "Environment mismatch - reproducibility not guaranteed" in played[2]
    assert mismatch is not all(space["validation"].values())
    assert [path.stem for path in (played[1] / "run_seals").iterdir()] == [space["seal"].run_id]


def test_load_returns_what_was_saved(played):
    space = of(played, "from ztb_jax.utils import CheckpointManager")
    assert same(space["manager"].load("exp_001", generation=1), space["model_state"])
    assert space["manager"].base_path == played[1] / "checkpoints"
    assert of(played, "import asyncio")["manager"].generations("exp_001") == [3, 2, 1]
    assert "[2, 3]" in played[2]


def test_the_best_model_is_found(played):
    space = of(played, "from ztb_jax.utils import ModelCheckpointingSystem")
    assert (space["latest"].step, space["best"].step) == (3000, 2000)
    assert same(space["best"].models["meta"]["kernel"], jnp.full((2, 2), 2000))


def test_a_block_may_await_and_a_wrong_one_is_seen():
    space: dict[str, Any] = {}
    run("import asyncio\nawait asyncio.sleep(0)\nx = 1\n", space)
    assert space["x"] == 1
    with pytest.raises(ZeroDivisionError):
        run("import asyncio\nawait asyncio.sleep(0)\n1 / 0\n", space)
    assert blocks(textwrap.dedent("text\n```python\na\n```\n```sh\nb\n```\n")) == ["a\n"]
