"""How verbs travel from a server to its clients, and what they cost."""
