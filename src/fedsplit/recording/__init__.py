"""Records of a run: ledger, metrics, checkpoints, models, results."""
