"""A gRPC server on loopback that notes who calls, and a call to it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from fedsplit.transport.grpc.protocol.tls import client_of

LONG = 300.0
"""Seconds that no call takes: what fails, fails earlier and for its own reason."""


@dataclass
class Server:
    """A running server: its port, and for each call the client that the certificate names."""

    port: int = 0
    callers: list[int | None] = field(default_factory=list)


class _NotesCallers(grpc.GenericRpcHandler):
    def __init__(self, server: Server) -> None:
        self._server = server

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def note(request: bytes, context: grpc.ServicerContext) -> bytes:
            self._server.callers.append(client_of(context.auth_context()))
            return request[::-1]

        return grpc.unary_unary_rpc_method_handler(note)


@contextmanager
def served(credentials: grpc.ServerCredentials) -> Iterator[Server]:
    """A server that turns the bytes of each request around."""
    with ThreadPoolExecutor(1) as pool:
        server, noted = grpc.server(pool), Server()
        server.add_generic_rpc_handlers((_NotesCallers(noted),))
        noted.port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield noted
        finally:
            server.stop(None).wait()


def call(port: int, credentials: grpc.ChannelCredentials | None, host: str = "127.0.0.1") -> bytes:
    """One call; `credentials` None speaks plaintext.

    Raises:
        grpc.RpcError: the server cannot be reached, or does not want this caller.
    """
    target = f"{host}:{port}"
    channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
    with channel:
        return channel.unary_unary("/any/method")(b"abc", timeout=LONG)
