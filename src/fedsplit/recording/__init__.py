"""What a run writes: ledger, metrics, checkpoints, models, results."""
