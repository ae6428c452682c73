"""Plain functions from a `RunConfig` to one thing each; `build_run` calls them from top to bottom."""
