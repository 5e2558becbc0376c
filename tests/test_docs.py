"""Documentation that a program can check: settings, shipped configurations, links."""

import re
from pathlib import Path

import pytest

from ztb_jax.config import Config, flat, resolve
from ztb_jax.verdicts import VERDICTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


def shown(value) -> str:
    return "none" if value is None else str(list(value) if isinstance(value, tuple) else value)


def test_the_reference_lists_every_setting_with_its_default():
    page = (ROOT / "docs/reference/configuration.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| `(.+?)` \|", page, flags=re.MULTILINE))
    assert listed == {key: shown(value) for key, value in flat(Config()).items()}


def test_the_reference_lists_every_verdict_and_setting_of_gates():
    page = (ROOT / "docs/reference/gates.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \| .* \| .+ \| (.+) \|$", page, flags=re.MULTILINE)
    listed = {int(code): (name, remedy) for code, name, _, remedy in rows}
    assert listed == {code: (verdict.name, verdict.remedy) for code, verdict in VERDICTS.items()}
    named = {name for _, _, settings, _ in rows for name in re.findall(r"`(\w+)`", settings)}
    assert named == {key.removeprefix("gates.") for key in flat(Config()) if key.startswith("gates.")}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_resolves(path):
    assert resolve(file=path, environ={}) != Config()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
