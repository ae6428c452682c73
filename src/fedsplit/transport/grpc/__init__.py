"""Clients as processes of their own, on this or other machines, over gRPC."""
