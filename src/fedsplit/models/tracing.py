"""A module as a list of operations, in the order in which they run."""

import copy
import re

from torch import fx, nn

from fedsplit.errors import UserError


class Tracer(fx.Tracer):
    """Looks into every module but torch's own and those that say they are one operation.

    Args:
        closed: names of further submodules that are not looked into.
    """

    def __init__(self, closed: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._closed = closed
        self.within: list[str] = []
        """Submodules whose code was running when tracing ended, outermost first; all of it, none."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        closed = module_qualified_name in self._closed or getattr(m, "is_one_operation", False)
        return closed or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m, forward, args, kwargs):  # type: ignore[no-untyped-def]
        """See `fx.Tracer.call_module`; remembers where an error came from."""
        self.within.append(self.path_of_module(m))
        output = super().call_module(m, forward, args, kwargs)
        self.within.pop()
        return output


def traced(module: nn.Module) -> list[fx.Node]:
    """The operations of a module; a submodule that cannot be looked into is one of them.

    Raises:
        UserError: the module's own `forward` cannot be followed; says where, and why.
    """
    closed: frozenset[str] = frozenset()
    while True:
        tracer = Tracer(closed)
        try:
            return list(tracer.trace(module).nodes)
        except (fx.proxy.TraceError, TypeError, RuntimeError) as error:  # RuntimeError: forward calls `len`
            if tracer.within:
                closed |= {tracer.within[-1]}
                continue
            reason = re.sub(r"\s+", " ", str(error)).strip()
            children = ", ".join(name for name, _ in module.named_children())
            told = f"its forward cannot be followed, for what it does depends on values ({reason})"
            raise UserError(
                "model", type(module).__name__, f"{told}; no cut between its parts {children} is possible"
            ) from error


def copied(module: nn.Module) -> nn.Module:
    """A module with parameters of its own: those that share memory in the original share it no more."""
    return copy.deepcopy(module)
