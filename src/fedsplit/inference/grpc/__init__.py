"""Split inference with devices that dial in over gRPC."""
