"""A table for a paper, with the rules of booktabs."""

import re
from collections.abc import Iterable
from textwrap import wrap

from fedsplit.results.tables.table import Shown, Table

_SETTING_WIDTH = r"0.28\linewidth"
"""Settings are as long as they are: they wrap, other names do not."""
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
    """A `tabular`, to be put into a `table` that has the paper's own words for a caption.

    Title, description and how it is to be read are in comments. It needs booktabs, and nothing else.
    """
    names = table.names()
    kinds = {"Setting": f"p{{{_SETTING_WIDTH}}}", "Seeds": "r"}
    columns = "".join(kinds.get(title, "l") for title in names) + "r" * len(table.columns)
    head = [_escaped(title) for title in names] + [_stacked(column.title) for column in table.columns]
    rows = [[*map(_name, own, own.values()), *map(_number, cells)] for own, cells in table.lines()]
    comments = [table.title, table.description, table.note(), r"\usepackage{booktabs}"]
    return "\n".join(
        [
            *(f"% {' '.join(text.split())}" for text in comments if text),
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _line(head),
            r"\midrule",
            *map(_line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _line(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _name(title: str, name: str) -> str:
    if title != "Setting":
        return _escaped(name)
    breakable = re.sub(r"[_.=/]", lambda found: rf"{found[0]}" + "\0", name)
    return rf"{{\raggedright {_escaped(breakable)}\par}}".replace("\0", r"\allowbreak{}")


def _stacked(title: str) -> str:
    """A title over numbers, in lines that are hardly wider than these."""
    lines = r"\\".join(map(_escaped, wrap(title, 11, break_long_words=False)))
    return rf"\shortstack[r]{{{lines}}}"


def _number(cell: Shown) -> str:
    number = rf"\textbf{{{cell.mean}}}" if cell.best else {"-": "--"}.get(cell.mean, cell.mean)
    deviation = rf" $\pm$ {cell.deviation}" if cell.deviation else ""
    return number + deviation + (f" ({cell.reached})" if cell.reached else "")


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(each, each) for each in " ".join(text.split()))
