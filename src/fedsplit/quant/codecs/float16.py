"""Codec of IEEE half precision."""

import torch

from fedsplit.quant.codecs.cast import Cast


class Float16(Cast):
    """float16: 11 significant bits from 6e-5 to 65,504. Error: 2^-11 of the value, at least 2^-25."""

    def __init__(self) -> None:
        super().__init__(torch.float16)
