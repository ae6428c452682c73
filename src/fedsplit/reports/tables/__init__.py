"""Tables out of what runs left behind: what is measured, rows over seeds, and a file for each format."""
