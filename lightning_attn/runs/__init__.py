"""Folders of runs, checkpoint files and loggers."""
