"""Images as part of a page."""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from struct import unpack

_PIXELS_AN_INCH = 144
"""On the page: the 8-point text of a figure is as large as the page's own."""
_PNG_PIXELS_AN_INCH = 200
"""Of the house's PNGs."""


@dataclass(frozen=True)
class Inlined:
    """An image for `<img>`.

    Args:
        source: a `data:` address that holds all of it.
        width: in CSS pixels.
        height: in CSS pixels.
    """

    source: str
    width: int
    height: int


def inlined(images: Mapping[str, bytes]) -> Inlined | None:
    """The SVG of a figure, or else its PNG; None without either.

    As an image, and not as part of the page's own tree, an SVG cannot run scripts, and what its elements
    are called cannot clash with another's.
    """
    if "svg" in images:
        return _inlined("svg+xml", images["svg"], *_svg_inches(images["svg"]))
    if "png" in images:
        width, height = unpack(">II", images["png"][16:24])
        return _inlined("png", images["png"], width / _PNG_PIXELS_AN_INCH, height / _PNG_PIXELS_AN_INCH)
    return None


def _inlined(kind: str, image: bytes, width: float, height: float) -> Inlined:
    source = f"data:image/{kind};base64,{b64encode(image).decode()}"
    return Inlined(source, round(width * _PIXELS_AN_INCH), round(height * _PIXELS_AN_INCH))


def _svg_inches(image: bytes) -> tuple[float, float]:
    """As matplotlib says them: in points, on the outermost element."""
    start = image[: image.index(b">", image.index(b"<svg"))].decode()
    width, height = (float(re.findall(rf'\s{side}="([\d.]+)pt"', start)[0]) for side in ("width", "height"))
    return width / 72, height / 72
