"""A client model at several precisions: deployed, evaluated, measured, as table, files and figure."""
