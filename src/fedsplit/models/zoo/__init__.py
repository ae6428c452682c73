"""The models that come with fedsplit, one file a family."""
