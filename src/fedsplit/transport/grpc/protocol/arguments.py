"""Arguments of `transport=grpc` for those who are no transport: clients, and both ends of split inference."""

from dataclasses import dataclass
from typing import Any, Self

from fedsplit.config.component import Component
from fedsplit.config.values import PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class GrpcArguments:
    """Arguments of `GrpcTransport`, see there."""

    spawn: bool
    listen: str
    server: str | None
    tls: str | None
    min_clients: PositiveInt | None
    round_deadline_s: PositiveFloat | None

    @classmethod
    def of(cls, transport: Component) -> Self:
        """The arguments in a configuration, checked with it."""
        given: Any = transport.arguments
        return cls(**given)
