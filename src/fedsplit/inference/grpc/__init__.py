"""Split inference over gRPC."""
