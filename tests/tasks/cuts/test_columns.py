"""Columns of the table of cuts: in a terminal the most important, elsewhere all, or those asked for."""

import io

import pytest
from rich.console import Console

from fedsplit.tasks.cuts.costs import CutCosts, column_names, print_csv, print_markdown, print_shown

ALGORITHMS = ("fed_avg", "splitfed_v1", "splitfed_v2", "minibatch_sfl", "cse_fsl", "fsl_sage", "lgl_sl")
CUTS = [
    CutCosts(
        *(f"layer{k}", k or None, 1, 8000, 40_000 * k, 90_000, 7000, 2_000_000, 3_000_000),
        *(45_000, 5000),
        load={name: 1e6 * (5 if "splitfed" in name else place + k) for place, name in enumerate(ALGORITHMS)},
    )
    for k in range(3)
]
EVERY = column_names(ALGORITHMS)


def shown(width: int, *, terminal: bool = True, columns: list[str] | None = None) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    print_shown(CUTS, columns, "about", "fsl_sage", console)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_table_of_cuts_in_a_terminal_has_one_line_a_cut_and_names_what_it_has_no_room_for(width: int) -> None:
    *table, told = shown(width)
    assert max(map(len, table)) <= width
    assert [sum(f"layer{k} " in line for line in table) for k in range(3)] == [1, 1, 1]
    missing = told.removeprefix("no room for ").partition(":")[0].split(", ")
    heading = " ".join(table[2:4])
    for important in ("stage", "smashed_bytes", "load_fsl_sage"):
        assert important not in missing
    assert "fsl_sage" in heading


def test_wider_terminal_shows_more_and_loads_that_another_column_tells_come_last() -> None:
    missing = [shown(width)[-1].partition(":")[0].count(", ") for width in (80, 100, 120)]
    assert missing == sorted(missing, reverse=True)
    last = next(told for width in range(200, 60, -1) if "no room for" in (told := shown(width)[-1]))
    assert last.startswith("no room for load_splitfed_v2: task.format=csv has all")


@pytest.mark.parametrize(("width", "terminal"), [(80, False), (400, True)])
def test_file_and_wide_terminal_get_every_column(width: int, terminal: bool) -> None:
    lines = shown(width, terminal=terminal)
    assert "no room" not in lines[-1]
    assert all(name in "".join(lines) for name in ALGORITHMS)


def test_columns_asked_for_are_those_of_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["load_cse_fsl", "stage"]
    print_csv(CUTS, asked)
    assert capsys.readouterr().out.splitlines() == [
        "cut,load_cse_fsl,stage",
        "layer0,4000000,",
        "layer1,5000000,1",
        "layer2,6000000,2",
    ]
    print_markdown(CUTS, asked, "about")
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| cut | cse_fsl | stage |",
        "|---|--:|--:|",
        "| layer0 | 4.00 |  |",
        "| layer1 | 5.00 | 1 |",
        "| layer2 | 6.00 | 2 |",
    ]
    heading = shown(100, columns=asked)[2]
    assert [each.strip() for each in heading.split("\N{BOX DRAWINGS HEAVY VERTICAL}")[1:-1]] == [
        "cut",
        "cse_fsl",
        "stage",
    ]
    assert "no room" not in shown(100, columns=asked)[-1]


def test_column_of_an_algorithm_that_tells_no_load_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv(CUTS[:1], ["load_own"])
    assert capsys.readouterr().out.splitlines()[1] == "layer0,"
