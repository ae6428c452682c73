"""All types of figures, by the names that experiments give them."""

from collections.abc import Mapping
from typing import Any

from fedsplit.reports.figures.against import Against
from fedsplit.reports.figures.bars import Bars
from fedsplit.reports.figures.classes import Classes
from fedsplit.reports.figures.confusion import Confusion
from fedsplit.reports.figures.curve import Curve
from fedsplit.reports.figures.figure_type import FigureType
from fedsplit.reports.figures.roc import Roc
from fedsplit.reports.figures.scatter import Scatter

FIGURE_TYPES: Mapping[str, type[FigureType[Any]]] = {
    "curve": Curve,
    "against": Against,
    "scatter": Scatter,
    "bars": Bars,
    "classes": Classes,
    "confusion": Confusion,
    "roc": Roc,
}
