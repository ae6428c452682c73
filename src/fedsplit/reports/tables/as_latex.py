"""A table for a paper, with the rules of booktabs."""

import re
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Literal

from fedsplit.reports.tables.table import Table, TableCell

_SETTING = r">{\raggedright\arraybackslash}p{0.28\linewidth}"
"""Settings are as long as they are: they wrap, other names do not."""
_TITLE_LETTERS = 11
"""Most letters in a line of a column's title: hardly wider than a mean and its spread."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "±": r"$\pm$",
    **{each: f"\\{each}" for each in "{}$&#_%"},
    **{each: f"{{{each}}}" for each in "[]*-"},  # an argument behind \\, and ligatures
}


def as_latex(table: Table) -> str:
    r"""A `tabular`, to be `\input` where the paper has its own words for a caption.

    Title and how it is to be read are in comments, with the packages that it needs.
    """
    names = table.names()
    kinds = {"Setting": _SETTING, "Seeds": "r"}
    columns = "".join(kinds.get(title, "l") for title in names) + "r" * len(table.columns)
    head = [_escape(title) for title in names] + [_title(column.title) for column in table.columns]
    rows = [[*map(_name, own, own.values()), *map(_number, cells)] for own, cells in table.lines()]
    comments = [table.title, table.note(), r"\usepackage{array,booktabs}"]
    return "\n".join(
        [
            *(f"% {' '.join(text.split())}" for text in comments if text),
            r"{\small\setlength{\tabcolsep}{3pt}%",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            _line(head),
            r"\midrule",
            *map(_line, rows),
            r"\bottomrule",
            r"\end{tabular}}",
            "",
        ]
    )


def _line(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _name(title: str, name: str) -> str:
    if title != "Setting":
        return _escape(name)
    breakable = re.sub(r"(?<=[_.=/])(?=\w)", "\0", name)
    return _escape(breakable).replace("\0", r"\allowbreak{}")


def _title(title: str) -> str:
    lines = wrap(title, _TITLE_LETTERS, break_long_words=False)
    return _stack([_escape(line) for line in lines], aligned="b")


def _number(cell: TableCell) -> str:
    number = rf"\textbf{{{cell.mean}}}" if cell.best else {"-": "--"}.get(cell.mean, cell.mean)
    number += rf" $\pm$ {cell.spread}" if cell.spread else ""
    return (
        _stack([number, rf"\footnotesize {cell.share_at_target}"], aligned="t")
        if cell.share_at_target
        else number
    )


def _stack(lines: Sequence[str], *, aligned: Literal["t", "b"]) -> str:
    return rf"\begin{{tabular}}[{aligned}]{{@{{}}r@{{}}}}" + r"\\".join(lines) + r"\end{tabular}"


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(each, each) for each in " ".join(text.split()))
