"""The clients' end of a wire: what they send is coded."""

from torch import Tensor

from fedsplit.parties.messages import Part, Upload
from fedsplit.quant.codec import Transfer
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.quantization import rounding_seed
from fedsplit.quant.weights_link import Delivery, Uplink
from fedsplit.state.state import State
from fedsplit.state.weights import Weights
from fedsplit.transport.links import KIND_OF, coded_tensor, exactly, sent_as, weights_seed
from fedsplit.transport.transport import RunSetting


class ClientEnd:
    """Codes what the clients of this process send.

    Args:
        run: setting of the run.
        packs: True if messages are made, and not only what they would be decoded to.
    """

    def __init__(self, run: RunSetting, *, packs: bool) -> None:
        self._seed, self._quantization, self._packs = run.seed, run.quantization, packs
        self._labels = run.dataset.objective.labels()
        self._uplinks = {part: Uplink(run.quantization.weights, run.device, packs=packs) for part in KIND_OF}

    def code_smashed(self, upload: Upload, round: int) -> SentTensor:
        """Smashed data of one client, of real positions.

        Raises:
            NonFinite: they are not finite.
        """
        z = self._quantization.positions.pack(upload.z, upload.y)
        seed = rounding_seed(self._seed, "smashed", upload.client, round, upload.step)
        with sent_as("smashed", upload.client):
            return coded_tensor(z, self._quantization.smashed, seed, packs=self._packs)

    def trunk_gradient(self, dh: Tensor, client: int, round: int, step: int) -> SentTensor:
        """Gradient of one client's loss with respect to what it was sent for its tail.

        Raises:
            NonFinite: it is not finite.
        """
        seed = rounding_seed(self._seed, "trunk_gradient", client, round, step)
        with sent_as("cut_gradient", client):
            codec = self._quantization.codec("trunk_gradient")
            return coded_tensor(dh.contiguous(), codec, seed, packs=self._packs)

    def slopes(self, own: Tensor, client: int) -> SentTensor:
        """Slopes of one client, which arrive as they are.

        Raises:
            NonFinite: they are not finite.
        """
        with sent_as("scalars", client):
            return exactly(own, packs=self._packs)

    def labels(self, y: Tensor) -> SentTensor:
        """Labels of one client or of many, which arrive as they are."""
        message = self._labels.encode(y) if self._packs else None
        return SentTensor(y, Transfer(y, self._labels.size(y), message))

    def weights(self, part: Part, client: int, own: Weights, held: Weights | None, round: int) -> Delivery:
        """Weights of one client.

        Args:
            part: part of the model.
            client: whose.
            own: weights of the client.
            held: weights that it sends the difference to; None where it sends weights as they are.
            round: number of the round.

        Raises:
            NonFinite: they are not finite.
        """
        with sent_as(KIND_OF[part], client):
            seed = weights_seed(self._seed, "up", part, client, round)
            return self._uplinks[part].send(client, own, held, seed)

    def forget(self) -> None:
        """Drop what was rounded away."""
        for uplink in self._uplinks.values():
            uplink.forget()

    def state(self) -> State:
        """Rounding errors that are still to be sent, by part and client."""
        return {part: uplink.state() for part, uplink in self._uplinks.items()}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave; parts that it lacks begin anew."""
        for part, uplink in self._uplinks.items():
            uplink.load_state(state.get(part, {}))
