"""The small faults that tests are held against fit the source as it is."""

from tests.mutations import FAULTS, ROOT


def test_each_fault_replaces_a_text_that_stands_once_in_its_file_and_names_tests_that_exist() -> None:
    misfits = [
        fault.name
        for fault in FAULTS
        if not (ROOT / fault.file).is_file()
        or (ROOT / fault.file).read_text("utf-8").count(fault.before) != 1
    ]
    assert misfits == []
    assert [
        test for fault in FAULTS for test in fault.tests if not (ROOT / test.partition("::")[0]).exists()
    ] == []
