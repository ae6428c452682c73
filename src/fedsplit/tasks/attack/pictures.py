"""Originals above what attackers made of them, and accuracy against what leaks."""

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedsplit.reports.figures.style import INK, TEXT_SIZE, Look, blank_figure, legend_below, looks, tidy
from fedsplit.tasks.attack.attacker import Finding
from fedsplit.tasks.attack.rows import AttackRow
from fedsplit.tasks.attack.scene import Setting

if TYPE_CHECKING:  # matplotlib is optional and slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PICTURE, _LABELS = 0.64, 1.75  # inches: about the side of an image, and room for labels
_DPI = 200
_SIZES = (4.0, 11.0)  # sizes of the markers of the fewest and the most bytes, in points


def reconstruction_figure(originals: Tensor, rows: Sequence[AttackRow]) -> "Figure":
    """A row of originals, and one of reconstructions of each finding that has some.

    Args:
        originals: images `(n, c, h, w)`, of which all are shown.
        rows: rows of one cut; those without images are left out.

    Raises:
        UserError: matplotlib is not installed.
    """
    lines = [("originals", originals)]
    lines += [
        (row_label(row), row.finding.images[: len(originals)])
        for row in rows
        if row.finding.images is not None
    ]
    mosaic = _mosaic([images for _, images in lines])
    side = originals.shape[-1]
    magnified = max(1, round(_PICTURE * _DPI / side)) / _DPI  # inches of a pixel, of the same size everywhere
    width, height = mosaic.shape[1] * magnified, mosaic.shape[0] * magnified
    figure = blank_figure(_LABELS + width, height)
    figure.set_dpi(_DPI)
    figure.set_layout_engine("none")
    whole = _LABELS + width
    axes = figure.add_axes((_LABELS / whole, 0, width / whole, 1))
    axes.imshow(mosaic, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for number, (label, _) in enumerate(lines):
        middle = 1 - (number + 0.5) / len(lines)
        figure.text((_LABELS - 0.1) / whole, middle, label, ha="right", va="center", fontsize=TEXT_SIZE)
    return figure


def _mosaic(lines: Sequence[Tensor]) -> NDArray[np.floating]:
    """All images in a grid on white, `(height, width, 3)`."""
    rows = []
    for images in lines:
        shown = images.detach().cpu().float()
        coloured = shown if shown.shape[1] == 3 else shown.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        gap = max(1, coloured.shape[-1] // 16)
        framed = functional.pad(coloured, (0, gap, gap // 2, gap - gap // 2), value=1.0)
        rows.append(framed.permute(2, 0, 3, 1).flatten(1, 2))
    return torch.cat(rows).numpy()


def row_label(row: AttackRow) -> str:
    """Label of a row in two lines: what was sent, who attacked, and how near the images are."""
    found = row.finding
    first = "mean image" if found.attacker == "mean" else f"{row.setting.title}: {found.title}"
    if found.psnr is None or found.ssim is None:
        return first
    return f"{first}\n{found.psnr.mean:.1f} dB, SSIM {found.ssim.mean:.2f}"


def leakage_figure(rows: Sequence[AttackRow]) -> "Figure":
    """Test accuracy against the similarity of the best reconstruction: a point for each setting.

    Sizes of points stand for bytes a sample; bars are one standard error.

    Args:
        rows: rows with reconstructions.

    Raises:
        UserError: matplotlib is not installed, or settings are more than can be told apart.
    """
    from matplotlib.lines import Line2D  # noqa: PLC0415

    best = strongest(rows)
    one_cut = len({setting.cut for setting in best}) == 1
    kinds = {each: (each.title, "" if one_cut else f"cut after {each.cut}") for each in best}
    found = looks(list(kinds.values()), lambda setting: setting)
    sizes = _diameters(best)
    figure = blank_figure(3.5, 2.6)
    axes = figure.add_subplot()
    for setting in sorted(best, key=lambda each: -each.bytes_per_sample):  # small ones above large ones
        look, ssim = found[kinds[setting]], best[setting].ssim
        assert ssim is not None
        axes.errorbar(
            ssim.mean,
            100 * setting.test_accuracy,
            xerr=ssim.standard_error,
            yerr=100 * setting.test_accuracy_se,
            color=look.colour,
            elinewidth=0.7,
            markersize=sizes[setting],
            markeredgewidth=0.8,
            **_edge_markers(look),
        )
    tidy(axes, "SSIM of the best reconstruction", "Test accuracy (%)")
    _explain_sizes(axes, best, sizes)
    names = list(dict.fromkeys(kinds.values()))
    handles = [
        Line2D([], [], color=found[kind].colour, linestyle="", markersize=5, **found[kind].of_markers)
        for kind in names
    ]
    legend_below(figure, handles, [", ".join(filter(None, kind)) for kind in names])
    return figure


def strongest(rows: Sequence[AttackRow]) -> dict[Setting, Finding]:
    """Finding with the most similar images in each setting; the mean image, which is of none, aside."""
    best: dict[Setting, Finding] = {}
    for row in rows:
        ssim, known = row.finding.ssim, best.get(row.setting)
        if ssim is None or row.finding.attacker == "mean":
            continue
        if known is None or known.ssim is None or ssim.mean > known.ssim.mean:
            best[row.setting] = row.finding
    return best


def _edge_markers(look: Look) -> dict[str, Any]:
    """Markers that can be told from those below them."""
    return look.of_markers | ({"markeredgecolor": "white"} if look.fill == "full" else {})


def _diameters(settings: Sequence[Setting] | dict[Setting, Finding]) -> dict[Setting, float]:
    """Diameters in points, growing with the logarithm of bytes."""
    logs = {setting: log(max(setting.bytes_per_sample, 1)) for setting in settings}
    least, most = min(logs.values()), max(logs.values())
    low, high = _SIZES
    return {
        setting: low + (high - low) * (each - least) / (most - least) if most > least else (low + high) / 2
        for setting, each in logs.items()
    }


def _explain_sizes(axes: "Axes", best: dict[Setting, Finding], sizes: dict[Setting, float]) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    by_bytes = sorted(best, key=lambda setting: setting.bytes_per_sample)
    shown = list(dict.fromkeys((by_bytes[0], by_bytes[len(by_bytes) // 2], by_bytes[-1])))
    axes.legend(
        [Line2D([], [], color=INK, linestyle="", marker="o", markersize=sizes[each]) for each in shown],
        [f"{each.bytes_per_sample:,.0f} bytes" for each in shown],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        fontsize=TEXT_SIZE,
        frameon=False,
        handletextpad=0.1,
        columnspacing=0.8,
        borderpad=0.1,
    )
