"""How steps are computed: the state of one model or of a stack of them, and captured steps."""
