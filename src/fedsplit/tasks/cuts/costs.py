"""What one cut of a model costs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CutCosts:
    """Of one cut.

    Args:
        stage: its number; None where it is no stage.
        tensors: that cross.
        smashed_bytes: of one sample, as float32.
        client_bytes: of the client model's state.
        server_bytes: of the server model's state.
        auxiliary_bytes: of the state of an auxiliary model that is derived from the server model.
        client_macs: multiply-adds of the client model's forward pass for one sample.
        server_macs: of the server model's.
        load: bytes a round, by algorithm.
    """

    name: str
    stage: int | None
    tensors: int
    smashed_bytes: int
    client_bytes: int
    server_bytes: int
    auxiliary_bytes: int
    client_macs: int
    server_macs: int
    load: dict[str, float]
