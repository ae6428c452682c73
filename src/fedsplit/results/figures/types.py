"""All types of figures, by the names that experiments give them."""

from collections.abc import Mapping
from typing import Any

from fedsplit.results.figures.against import Against
from fedsplit.results.figures.bars import Bars
from fedsplit.results.figures.classes import Classes
from fedsplit.results.figures.confusion import Confusion
from fedsplit.results.figures.curve import Curve
from fedsplit.results.figures.figure_type import FigureType
from fedsplit.results.figures.roc import Roc
from fedsplit.results.figures.scatter import Scatter

FIGURE_TYPES: Mapping[str, type[FigureType[Any]]] = {
    "curve": Curve,
    "against": Against,
    "scatter": Scatter,
    "bars": Bars,
    "classes": Classes,
    "confusion": Confusion,
    "roc": Roc,
}
