"""What a model computes up to each of its operations."""

from typing import Any

from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from fedsplit.computing.multiply_adds import attention_in_products
from fedsplit.models.splitting.cuts import Cuts, evaluating


class _Counting(fx.Interpreter):
    """Runs operations, and notes the multiply-adds after each."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.counter, self.after = counter, [0]

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.after.append(self.counter.get_total_flops() // 2)
        return value


def multiply_adds_after(cuts: Cuts, example: Tensor) -> list[int]:
    """Multiply-adds of a forward pass for one sample, after none of the model's operations, after one, ...

    Args:
        example: samples, `(n, c, h, w)`.
    """
    runner = fx.GraphModule(cuts.module, cuts.nodes[0].graph)
    with evaluating(cuts.module), attention_in_products(), FlopCounterMode(display=False) as counter:
        counting = _Counting(runner, counter)
        counting.run(example)
    return [macs // len(example) for macs in counting.after]
