"""Where images and texts come from, one file a source."""
