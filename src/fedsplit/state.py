"""What can be written to a checkpoint: a tree of tensors and plain values."""

from typing import Any, TypeAlias

State: TypeAlias = dict[str, Any]
"""Nested by text keys without "/"; leaves are tensors, numbers, texts, booleans, None or lists of these."""
