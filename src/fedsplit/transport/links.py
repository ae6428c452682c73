"""What both ends of a link agree on: how the weights of a part are counted, and what is drawn for them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fedsplit.errors import NonFinite
from fedsplit.parties.messages import Part
from fedsplit.quant.codec import NotFinite
from fedsplit.quant.coded import Coded
from fedsplit.randomness import seed_of
from fedsplit.results.ledger import Direction, Kind, Ledger

KIND_OF: dict[Part, Kind] = {
    "client": "client_weights",
    "auxiliary": "auxiliary_weights",
    "full": "full_weights",
}
"""How the weights of a part are counted."""


def weights_seed(seed: int, direction: Direction, part: Part, client: int, round: int) -> int:
    """Seed of what codecs draw for weights; `client` is 0 where all clients are sent the same."""
    return seed_of(seed, f"rounding of {KIND_OF[part]} {direction}", client=client, round=round)


def count(
    ledger: Ledger, round: int, direction: Direction, kind: Kind, coded: Sequence[Coded], *, times: int
) -> None:
    """Count tensors that were sent, each so many times."""
    for each in coded:
        ledger.add(
            round,
            direction,
            kind,
            times * each.arrived.size,
            values=times * each.meant.numel(),
            signal=times * each.signal,
            noise=times * each.noise,
        )


@contextmanager
def sent_as(kind: Kind, client: int | None) -> Iterator[None]:
    """While something is coded: what is not finite ends the round, and says what it was and whose.

    Raises:
        NonFinite: it was not.
    """
    try:
        yield
    except NotFinite as error:
        raise NonFinite(kind, client) from error
