"""What a run leaves behind: ledger, metrics, checkpoints, curves."""
