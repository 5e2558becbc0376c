"""The page's gates, trades and seal: all that there is, and what is left out is said."""

import re

import numpy as np
import pytest

from tests.evaluation.test_report_page import outline, report
from ztb_jax.evaluation import figures
from ztb_jax.evaluation.provenance import Gates, Resume, Seal
from ztb_jax.evaluation.report import render


def text_of(page):
    return " ".join(" ".join(outline(page).text).split())


def rows_of(part):
    return part.count("<tr><td class=")


def parts(page):
    """What stands before, within and after the fold."""
    before, rest = page.split("<details", 1)
    within, after = rest.split("</details>", 1)
    return before, within, after


def test_few_trades_are_not_folded():
    page = render(report(num_trades=20))
    assert "<details" not in page
    assert rows_of(page) == 20


@pytest.mark.parametrize(("count", "folded", "printed"), [(21, 1, True), (220, 200, True), (221, 201, False)])
def test_all_but_ten_at_either_end_are_folded(count, folded, printed):
    before, within, after = parts(render(report(num_trades=count)))
    assert (rows_of(before), rows_of(within), rows_of(after)) == (10, folded, 10)
    assert f"{folded} more trade{'s' if folded > 1 else ''}, from" in within
    assert within.startswith(' class="printed"') == printed
    prices = [1000.0 + number for number in range(count)]
    told = [
        float(cell.replace(",", ""))
        for cell in re.findall(r"<td>(1,\d{3}\.\d\d)</td>", before + within + after)
    ]
    assert told == prices


def test_beyond_two_thousand_what_is_left_out_is_said():
    before, within, after = parts(render(report(bars=3_000, num_trades=2_050)))
    assert (rows_of(before), rows_of(within), rows_of(after)) == (10, 2_000, 10)
    # Trade i is filled i + 1 days after 2015-01-01: 2010 to 2039 are left out.
    first, last = (np.datetime64("2015-01-01") + number + 1 for number in (2_010, 2_039))
    assert f"30 trades from {first} to {last} are left out to keep this page small" in after


def test_turns_are_drawn_while_they_can_be_told_apart():
    few, many = render(report(bars=300, num_trades=200)), render(report(bars=300, num_trades=201))
    assert "<b>Bought</b>" in few
    assert "<b>Bought</b>" not in many
    assert few.count("<use ") - many.count("<use ") >= 400


def test_a_turn_stands_beside_its_price_on_its_side():
    stamps = np.datetime64("2020-01-01", "s") + np.arange(5) * np.timedelta64(1, "D")
    turns = figures.Turns(stamps[[1, 3]], np.array([10.0, 10.0]), np.array([True, False]))
    drawn = figures.position_figure(stamps, np.full(5, 10.0), np.ones(4), turns)

    def marks(colour):
        used = rf'<use href="#[^"]+" x="([\d.]+)" y="([\d.]+)" style="fill: var\(--{colour}\)"'
        return [(float(x), float(y)) for x, y in re.findall(used, drawn.wide)]

    (bought,), (sold,) = marks("long"), marks("short")
    assert bought[0] < sold[0]
    assert bought[1] - sold[1] == pytest.approx(10.0, abs=0.1)  # points down the page: below, and above


def test_healthy_windows_are_told_in_one_line_and_gates_in_words():
    text = text_of(render(report()))
    assert "All 3 windows were healthy. What would have stopped the run: kl_runaway a KL above 1" in text


def test_a_failure_is_told_by_window_with_its_remedy():
    page = render(report(gates=Gates({}, [(0, 0), (1, 0), (2, 2)])))
    text = text_of(page)
    assert "Of 3 windows 1 failed a gate, 2 were healthy." in text
    assert (
        "2 kl_runaway update after update moved the policy further than gates.kl lower ppo.learning_rate"
        in text
    )
    assert "What stops the run:" in text
    assert "unknown" in text_of(render(report(gates=Gates({}, [(0, 99)]))))
    assert "The one window was healthy." in text_of(render(report(gates=Gates({}, [(0, 0)]))))
    assert "No window was judged." in text_of(render(report(gates=Gates({}, []))))


def test_the_seal_tells_how_to_verify_and_what_had_changed():
    text = text_of(render(report()))
    assert f"ztb verify runs/run-7 Prices {'ab' * 32} Seed 7 The run was never resumed." in text
    resumes = [
        Resume("2026-01-01", 4, [], ["checkpoint 5"]),
        Resume("2026-01-02", 6, ["jax was 1 and is 2"], []),
    ]
    text = text_of(render(report(seal=Seal({}, "ztb verify runs/run-7", resumes))))
    assert "never resumed" not in text
    assert "Resumed 2026-01-01 from window 4 Nothing had changed" in text
    assert "Passed over: checkpoint 5" in text
    assert "Resumed 2026-01-02 from window 6 With drift allowed" in text
    assert "jax was 1 and is 2" in text


def test_paper_is_white_and_opens_a_short_fold():
    page = render(report())
    printed = page[page.index("@media print") : page.index("</style>")]
    for expected in (
        "background: #fff",
        "details.printed::details-content",
        "figure, tr, h2, h3 { break-inside: avoid; }",
    ):
        assert expected in printed


@pytest.mark.parametrize("values", [[0.0003, -0.00072], [0.5, 100.0], [np.nan, np.nan], [0.0]])
def test_small_values_are_drawn_as_multiples_of_a_power(values):
    scaled, unit = figures._readable(np.array(values))
    if unit:
        assert unit == ", ×10⁻⁴"
        np.testing.assert_allclose(scaled, [3.0, -7.2])
    else:
        np.testing.assert_array_equal(scaled, values)
    assert bool(unit) == (values[0] == 0.0003)
