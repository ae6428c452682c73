"""Reading and writing files: bounded where somebody else may have written them, whole or not at all."""
