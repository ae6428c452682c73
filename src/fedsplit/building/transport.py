"""What carries verbs to the clients of a run, and back."""

from fedsplit.building.parts import ClientParts
from fedsplit.recording.ledger import Ledger
from fedsplit.transport.transport import Run, Transport


def build_transport(parts: ClientParts, ledger: Ledger) -> Transport:
    """The transport of a run; bytes are counted in `ledger`."""
    return parts.config.transport.build(Transport, run=carried_run(parts, ledger))


def carried_run(parts: ClientParts, ledger: Ledger) -> Run:
    """What a transport needs to know; bytes are counted in `ledger`."""
    head = parts.engine.blueprint.head
    return Run(
        config=parts.config,
        engine=parts.engine,
        sample_counts=parts.sample_counts,
        dataset=parts.data.dataset,
        fingerprint=parts.data.fingerprint,
        normalisation=parts.data.normalise,
        quantization=parts.quantization,
        smashed_shape=parts.models.smashed_shape,
        client_weights=parts.models.halves.client.state_dict(),
        head_weights=head.state_dict() if head else {},
        device=parts.device,
        seed=parts.config.training.seed,
        ledger=ledger,
    )
