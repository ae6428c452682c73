"""Clients as processes of their own, on this machine or others, over gRPC."""

import os

# gRPC's core would write to standard error what a line of ours says, or what a stranger caused
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
