"""Batches of texts with more positions than their own."""

from torch import Tensor

from fedsplit.objectives.next_token import PADDING


def pad_to(z: Tensor, y: Tensor, length: int, padding: float) -> tuple[Tensor, Tensor]:
    """Pad smashed data to `(b, length, ...)` and labels to `(b, length)`, behind the batch's own.

    Args:
        z: smashed data `(b, t, ...)`.
        y: labels `(b, t)`.
        length: number of positions, at least t.
        padding: value of smashed data behind the end of a text.
    """
    if y.shape[1] == length:
        return z, y
    longer = z.new_full((len(z), length, *z.shape[2:]), padding), y.new_full((len(y), length), PADDING)
    for padded, own in zip(longer, (z, y), strict=True):
        padded[:, : own.shape[1]] = own
    return longer
