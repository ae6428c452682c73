"""Protocol that both ends of the network agree on: messages, tensors, plans, TLS."""
