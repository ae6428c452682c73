from itertools import combinations

import pytest

from fedsplit.reports.figures.style import algorithm_looks
from fedsplit.tasks.cuts.costs import CutCosts, cut_figure


@pytest.mark.parametrize("largest", [3, 15, 4000], ids="largest={}".format)
def test_labels_on_an_axis_of_the_cut_figure_are_apart_whatever_it_spans(largest: int) -> None:
    cuts = [
        CutCosts(
            *(f"layer{k}", None if k % 3 else k, 1, 0, 0, 0, 0),
            client_macs=int(2e6 * largest ** (k / 8)),
            server_macs=0,
            memory_bytes=0,
            held_bytes=0,
            load=dict.fromkeys(algorithm_looks(), 5e6 * largest ** (k / 8)),
        )
        for k in range(9)
    ]
    drawn = cut_figure(cuts)
    drawn.draw_without_rendering()
    (axes,) = drawn.axes
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        shown = [tick.label1 for tick in ticks if tick.label1.get_text() and low <= tick.get_loc() <= high]
        assert len(shown) >= 2
        for one, other in combinations(shown, 2):
            assert not one.get_window_extent().overlaps(other.get_window_extent())
