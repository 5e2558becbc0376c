import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.data.stamps import is_clock, parse
from ztb_jax.errors import DataError


def read(cells, **options) -> list[str]:
    column = pd.Series(cells, name="when", **options)
    return [str(stamp) for stamp in parse(column, np.arange(2, len(column) + 2)).astype("datetime64[s]")]


@pytest.mark.parametrize(
    ("cells", "second"),
    [
        (["2023-01-31", "2023-02-01"], "2023-02-01T00:00:00"),
        (["2023-01-31 04:00:00", "2023-01-31 08:00:00"], "2023-01-31T08:00:00"),
        (["2023.01.31 04:00", "2023.01.31 08:00"], "2023-01-31T08:00:00"),
        (["2023/1/31", "2023/2/1"], "2023-02-01T00:00:00"),
        (["2023-01-31T04:00:00Z", "2023-01-31T04:00:00+02:00"], "2023-01-31T02:00:00"),
        (["20230131", "20230201"], "2023-02-01T00:00:00"),
        (["20230131 170000", "20230131 180000"], "2023-01-31T18:00:00"),
        (["202301310400", "202301310500"], "2023-01-31T05:00:00"),
        (["1646092800", "1646096400"], "2022-03-01T01:00:00"),
        (["1646092800.0", "1646096400.0"], "2022-03-01T01:00:00"),
        (["1646092800", "1646096400000"], "2022-03-01T01:00:00"),
        (["1646092800000000", "1646096400000000000"], "2022-03-01T01:00:00"),
        (["31/01/2023", "01/02/2023"], "2023-02-01T00:00:00"),
        (["01/31/2023", "02/01/2023"], "2023-02-01T00:00:00"),
        (["01/02/2023", "31/01/2023"], "2023-01-31T00:00:00"),
        (["31.01.2023 10:00", "01.02.2023 11:30"], "2023-02-01T11:30:00"),
        (["1/31/2023 4:00 PM", "2/1/2023 12:00 AM"], "2023-02-01T00:00:00"),
        (["31-Jan-2023", "01-Feb-2023"], "2023-02-01T00:00:00"),
        (["Jan 31, 2023", "Feb 1, 2023"], "2023-02-01T00:00:00"),
        (["12/12/2023", "11/11/2023"], "2023-11-11T00:00:00"),
        ([" 2023-01-31 ", " 2023-02-01"], "2023-02-01T00:00:00"),
    ],
)
def test_a_date_format_is_detected(cells, second):
    assert read(cells)[1] == second


def test_typed_columns_need_no_detection():
    berlin = pd.DatetimeIndex(["2020-01-01", "2020-07-01"]).tz_localize("Europe/Berlin")
    assert read(berlin) == ["2019-12-31T23:00:00", "2020-06-30T22:00:00"]
    assert read([20230131, 20230201])[1] == "2023-02-01T00:00:00"
    assert read([1_646_092_800, 1_646_096_400_000.0])[1] == "2022-03-01T01:00:00"
    assert read([pd.Timestamp("2020-01-01").date()]) == ["2020-01-01T00:00:00"]


def test_dates_that_read_both_ways_are_refused():
    with pytest.raises(DataError, match=r"day-first or month-first .* row 2: '05/06/2023'\. Write ISO"):
        read(["05/06/2023", "06/06/2023"])


@pytest.mark.parametrize(
    ("cells", "row", "shown"),
    [
        (["2023-01-31", "x"], 3, "'x'"),
        (["2023-01-31", ""], 3, "an empty cell"),
        (["2023-01-31", None], 3, "an empty cell"),
        (["", "x"], 2, "an empty cell"),
        (["2023-01-31", "2023-02-30"], 3, "'2023-02-30'"),
        (["2023-01-31", "31/01/2023"], 3, "'31/01/2023'"),
        (["31/01/2023", "31/02/2023"], 3, "'31/02/2023'"),
        (["44957", "44958"], 2, "'44957'"),
        (["2023-01-31", "9999-01-01"], 3, "'9999-01-01'"),
        (["1646092800", "9" * 30], 3, "'" + "9" * 30 + "'"),
    ],
)
def test_what_is_no_date_is_named_with_its_row(cells, row, shown):
    with pytest.raises(DataError, match=rf"column 'when' .* first in row {row}: {shown}\. Write ISO"):
        read(cells)


def test_an_empty_first_cell_does_not_hide_the_format():
    with pytest.raises(DataError, match=r"^1 stamps .* row 2: an empty cell"):
        read(["", "31/01/2023", "01/02/2023"])


def test_a_missing_number_is_no_date():
    with pytest.raises(DataError, match="row 3: an empty cell"):
        read([1_646_092_800, None])


def test_a_time_of_day_is_told_from_a_date():
    assert is_clock(pd.Series(["04:00", "8:00", "23:59:59"]))
    assert not is_clock(pd.Series(["04:00", "2023-01-31 08:00"]))
    assert not is_clock(pd.Series([1, 2]))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(100_000_000, 4_000_000_000), min_size=2, max_size=20),
    st.sampled_from(["%Y-%m-%d %H:%M:%S", "%Y.%m.%d %H:%M:%S", "%Y%m%d%H%M%S", "%d-%b-%Y %H:%M:%S"]),
)
def test_what_is_written_is_read_back(seconds, form):
    stamps = pd.Series(np.array(seconds, "datetime64[s]"))
    assert read(stamps.dt.strftime(form).tolist()) == [str(stamp) for stamp in stamps.to_numpy()]
