"""What an answer to a verb has to be, before memory is taken for its tensors."""

from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import Expectations
from fedsplit.transport.grpc.protocol.tensors import Expected
from fedsplit.transport.grpc.server.pending import PendingVerb


def expected_tensors(
    pending: PendingVerb, answer: pb.FromClient, expectations: Expectations, samples: int
) -> list[Expected]:
    """The tensors of an answer to a verb.

    Args:
        pending: the verb, and what was answered before.
        answer: what came.
        expectations: what clients of the run may send.
        samples: training samples of the client.

    Raises:
        Corrupt: it is not what has to come next.
    """
    verb, content = pending.verb.head, answer.WhichOneof("content")
    if content in ("done", "failed") and answer.identity.step != verb.identity.step:
        raise Corrupt(f"{content} of step {answer.identity.step} came in place of {verb.identity.step}")
    if content == "failed":
        return []
    step = _next_upload(pending, expectations.steps(samples))
    if content == "upload":
        if answer.identity.step != step:
            raise Corrupt(f"an upload of step {answer.identity.step} came in place of one of {step}")
        return expectations.upload(expectations.batch(samples, step))
    if content != "done" or step is not None:
        raise Corrupt(f"{content} is no answer, or not yet")
    _check_losses(verb, answer.done, expectations, samples)
    if answer.done.difference != pending.difference:
        raise Corrupt("weights came as a difference, or did not, where the other was due")
    if verb.WhichOneof("content") != "upload_weights":
        return []
    return expectations.sent_up(expectations.part(verb.upload_weights.part), difference=pending.difference)


def _next_upload(pending: PendingVerb, steps: int) -> int | None:
    """The local step of the upload that comes next, of so many steps; None where all are here."""
    verb, came, step = pending.verb.head, len(pending.answers), None
    if verb.WhichOneof("content") == "forward" and not came:
        step = verb.identity.step
    if verb.WhichOneof("content") == "train_local" and verb.train_local.upload_interval:
        step = (came + verb.train_local.skip_first_upload) * verb.train_local.upload_interval
    return step if step is not None and step < steps else None


def _check_losses(verb: pb.FromServer, done: pb.Done, expectations: Expectations, samples: int) -> None:
    steps = expectations.steps(samples) if verb.train_local.train_head else 0
    if len(done.losses) != steps or len(done.samples) != steps:
        raise Corrupt(f"{len(done.losses)} losses of {len(done.samples)} batches came, and {steps} were due")
    for step, told in enumerate(done.samples):
        if told != expectations.batch(samples, step):
            raise Corrupt(f"no batch of step {step} has {told} samples")
