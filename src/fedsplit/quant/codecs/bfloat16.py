"""The upper half of float32."""

import torch

from fedsplit.quant.codecs.cast import Cast


class BFloat16(Cast):
    """bfloat16: 8 significant bits over the range of float32. Error: 2^-8 of the value.

    (Half a unit in the last place is 2^-9 of the next power of two, 2^-8 of the value at most.)
    """

    def __init__(self) -> None:
        super().__init__(torch.bfloat16)
