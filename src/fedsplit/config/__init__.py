"""From a command line to a `RunConfig`: composed, checked, typed. No other room knows Hydra, but sweeps."""
