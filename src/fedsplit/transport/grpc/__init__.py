"""Clients as processes of their own, on this machine or others, over gRPC."""

import os

# what gRPC's core tells on standard error is told in a line of ours, or is a stranger's doing
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
