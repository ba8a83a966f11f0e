"""Decodes the answers of two servers to one request and compares them. Runs in a thread, and imports numpy."""

from conch.api.shadow import ShadowShare
from conch.gateway.envoy.naming import Protocol
from conch.gateway.shadow_outcomes import Answered, Differs, Same, Unreadable
from conch.triton.agreement import disagreement
from conch.triton.answers import AnswerError, grpc_answer, http_answer
from conch.triton.tensors import Tensor


def compare(
    protocol: Protocol, stable: Answered, candidate: Answered, share: ShadowShare
) -> Same | Differs | Unreadable:
    """How the candidate's answer is, measured by the stable revision's."""
    try:
        wanted = _outputs(protocol, stable)
    except AnswerError:
        return Unreadable()
    try:
        got = _outputs(protocol, candidate)
    except AnswerError:
        return Differs(words="the new revision's answer cannot be read")
    words = disagreement(wanted, got, share)
    return Differs(words=words) if words else Same()


def _outputs(protocol: Protocol, answered: Answered) -> tuple[Tensor, ...]:
    if protocol is Protocol.HTTP:
        return http_answer(answered.headers, answered.body)[1]
    from google.protobuf.message import DecodeError
    from tritonclient.grpc.service_pb2 import ModelInferResponse

    try:
        return grpc_answer(ModelInferResponse.FromString(answered.body))[1]
    except DecodeError as error:
        raise AnswerError(str(error)) from error
