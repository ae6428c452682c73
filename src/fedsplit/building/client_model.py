"""The client model of a run without the rest of it: what a device builds that holds no data."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from fedsplit.config.component import Component
from fedsplit.config.run_config import RunConfig
from fedsplit.config.values import Plain
from fedsplit.data.dataset import Sizes
from fedsplit.models.adapters.adapter import Adapter
from fedsplit.models.group_normalised import replace_batch_norms
from fedsplit.models.splitting.split import divide, find_cuts
from fedsplit.models.splitting.tied import copy_without_ties


@dataclass(frozen=True)
class ClientArchitecture:
    """Recipe of a client model.

    Args:
        model: builds the whole model.
        adapter: adds parameters that learn to it.
        untie: True if parameters that are one and the same go separate ways.
        cut: name of the cut.
        sizes: sizes of data that the whole model is built for.
        norm: `group` where group normalisation takes the place of batch normalisation; None: nowhere.
    """

    model: Component
    adapter: Component
    untie: bool
    cut: str
    sizes: Sizes
    norm: str | None = None

    @classmethod
    def of_run(cls, config: RunConfig, cut: str, sizes: Sizes) -> Self:
        """Recipe of a run's client model, cut there."""
        splitting = config.splitting
        return cls(config.model, config.adapter, splitting.untie, cut, sizes, splitting.norm)

    def plain(self) -> dict[str, object]:
        """The arguments, as JSON can hold them."""
        components = {"model": self.model.plain(), "adapter": self.adapter.plain()}
        return {**vars(self), **components, "sizes": vars(self.sizes)}

    @classmethod
    def of(cls, plain: Plain) -> Self:
        """Recipe of a client model that `plain` described."""
        sizes = Sizes(**{**plain["sizes"], "shape": tuple(plain["sizes"]["shape"])})
        components = {key: Component.of(key, plain[key]) for key in ("model", "adapter")}
        return cls(**{**plain, **components, "sizes": sizes})

    def build(self) -> nn.Module:
        """The client model, float32, with weights of any value.

        Its other half, which may be much larger, takes no memory where that can be.
        """
        try:
            with torch.device("meta"):
                client = self._build_part()
        except (RuntimeError, NotImplementedError):  # an operation that needs values to look at
            return self._build_part()
        held = client.state_dict()
        beside = [name for name, _ in client.named_buffers() if name not in held]
        constants = [
            name for each in client.modules() for name, v in vars(each).items() if isinstance(v, Tensor)
        ]
        if beside or constants:  # values that no state dict holds
            return self._build_part()
        return client.to_empty(device="cpu")

    def _build_part(self) -> nn.Module:
        whole = self.model.build(nn.Module, **self.sizes.arguments)
        if self.untie:
            whole = copy_without_ties(whole)
        if self.norm is not None:
            whole = replace_batch_norms(whole)
        self.adapter.build(Adapter).inject(whole)
        cuts = find_cuts(whole, self.sizes.zeros(2))
        return divide(cuts, cuts[self.cut]).client
