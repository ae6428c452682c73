"""Resources of this machine: memory, cores, a terminal, and parts of the installation."""
