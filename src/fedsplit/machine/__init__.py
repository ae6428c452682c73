"""What this machine has and allows: memory, cores, a terminal, and parts of the installation."""
