"""Texts as token ids and back, from files or from the training split; nothing is fetched or executed."""
