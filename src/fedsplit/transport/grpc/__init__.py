"""Clients as processes of their own, on this machine or others, over gRPC."""
