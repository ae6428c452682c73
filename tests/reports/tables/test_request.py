from typing import Any

import pytest

from fedsplit.errors import UserError
from fedsplit.reports.tables.measures import NAMES
from fedsplit.reports.tables.table import TableRequest, table_request


def test_table_request_holds_the_targets_and_columns_asked_for() -> None:
    assert table_request("mine", {}) == TableRequest((), None)
    assert table_request("mine", {"targets": [0.8, 1]}) == TableRequest((0.8, 1.0), None)
    asked = {"targets": [0.5], "columns": list(NAMES)}
    assert table_request("mine", asked) == TableRequest((0.5,), NAMES)
    assert table_request("mine", {"spread": "interval"}) == TableRequest(spread="interval")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (None, "mine.table=null: must be {} or have keys of targets, columns, spread"),
        (["load"], "mine.table="),
        ({"target": [0.8]}, "mine.table.target=[0.8]: no such key; known: targets, columns, spread"),
        ({"targets": 0.8}, "mine.table.targets=0.8: must be a list of different accuracies"),
        ({"targets": [80]}, "mine.table.targets=[80]: must be"),
        ({"targets": [0]}, "mine.table.targets=[0]: must be"),
        ({"targets": [True]}, "mine.table.targets=[True]: must be"),
        ({"targets": ["0.8"]}, "mine.table.targets=['0.8']: must be"),
        ({"targets": [float("nan")]}, "mine.table.targets=[nan]: must be"),
        ({"targets": [0.8, 0.80000001]}, "mine.table.targets=[0.8, 0.80000001]: must be"),
        ({"spread": "95"}, "mine.table.spread=95: must be one of deviation, interval"),
        ({"columns": []}, "mine.table.columns=[]: must be a list of final_accuracy"),
        ({"columns": "load"}, "mine.table.columns=load: must be a list of final_accuracy"),
        ({"columns": ["load", "bytes"]}, "mine.table.columns=bytes: must be among final_accuracy"),
        ({"columns": [["load"]]}, "mine.table.columns=['load']: must be among final_accuracy"),
        ({"columns": ["load", "load"]}, "mine.table.columns=load: must be named once"),
        ({"columns": ["bytes_to_accuracy"]}, "mine.table.columns=bytes_to_accuracy: needs accuracies"),
        (
            {"columns": ["seconds_to_accuracy"], "targets": []},
            "mine.table.columns=seconds_to_accuracy: needs",
        ),
    ],
)
def test_wrong_table_request_is_refused_with_its_key_and_value(entry: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        table_request("mine", entry)
    assert str(caught.value).startswith(told)
