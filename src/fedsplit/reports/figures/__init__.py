"""Figures out of what runs left behind: a file for each type, and one for the style that all share."""
