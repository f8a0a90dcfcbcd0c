"""Columns of the page's own have keys that no metric can take."""

import pytest
from page_boards import small_board

from genbench.errors import DataError
from genbench.leaderboard.page.payload import payload


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"key": "@row"}, "The metric key '@row' begins with @, as the page's own columns do"),
        ({"key": ""}, "A metric has an empty key"),
        ({"label": " "}, "A metric has an empty label"),
        ({"key": "", "label": ""}, "A metric has an empty key and an empty label"),
    ],
)
def test_a_metric_without_a_key_or_name_of_its_own_is_an_error(changes, told):
    board = small_board()
    first, *others = board["metrics"]
    with pytest.raises(DataError, match=told):
        payload(board | {"metrics": [first | changes, *others]})
