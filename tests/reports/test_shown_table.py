"""Tables on terminals and in files of 80 columns, with words that must stay whole."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsplit.reports.shown_table import print_table


def printed(columns: int, *, terminal: bool, remark: str = "some words to wrap") -> list[str]:
    table = Table(caption="a caption")
    table.add_column("name", no_wrap=True)
    for number in range(columns):
        table.add_column(f"column_{number}", justify="right", no_wrap=True)
    table.add_column("remark")
    table.add_row("first", *(f"value_{number}" for number in range(columns)), remark)
    out = io.StringIO()
    print_table(table, Console(file=out, width=80, force_terminal=terminal, color_system=None))
    return out.getvalue().splitlines()


def test_table_that_fits_is_printed_in_one_piece() -> None:
    lines = printed(2, terminal=True)
    assert sum("name" in line for line in lines) == 1


@pytest.mark.parametrize("columns", [6, 20])
def test_table_wider_than_its_terminal_is_printed_in_parts_with_the_first_column_and_no_broken_word(
    columns: int,
) -> None:
    lines = printed(columns, terminal=True)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for word in [f"{kind}_{n}" for kind in ("column", "value") for n in range(columns)] + ["words", "remark"]:
        assert text.count(word) >= 1, word
    assert text.count("first") == text.count("name") >= 2
    assert text.count("a caption") == 1


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_numbers_and_headings_of_columns_that_are_not_to_be_broken_are_never_cut(width: int) -> None:
    table = Table()
    for name in ("cut", "sent as", "attacker"):
        table.add_column(name, no_wrap=True)
    for name in ("PSNR dB", "SSIM", "re-id. %", "labels %", "two\nlines", "AUC", "bytes", "accuracy %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("flatten", Text("none"), "decoder", "11.43", "0.312", "5.0", "", "1", "", "1,024", "20.3")
    out = io.StringIO()
    print_table(table, Console(file=out, width=width, force_terminal=True, color_system=None), names=3)
    assert "\N{HORIZONTAL ELLIPSIS}" not in out.getvalue()
    for word in ("0.312", "re-id. %", "accuracy %", "11.43"):
        assert out.getvalue().count(word) == 1, word
    parts = out.getvalue().count("PSNR") + out.getvalue().count("\n\N{BOX DRAWINGS HEAVY DOWN AND RIGHT}")
    for name in ("flatten", "none", "decoder"):
        assert out.getvalue().count(name) == parts, name
    assert max(map(len, out.getvalue().splitlines())) <= width


def test_word_wider_than_the_terminal_stays_in_one_piece() -> None:
    path = "saves/" + 90 * "x"
    assert path in "\n".join(printed(6, terminal=True, remark=path))


def test_file_gets_the_table_as_wide_as_it_is() -> None:
    lines = printed(20, terminal=False)
    assert sum("name" in line for line in lines) == 1
    assert all(f"value_{number}" in "\n".join(lines) for number in range(20))
