"""Many runs by one command: which, where, side by side, and what became of each."""
