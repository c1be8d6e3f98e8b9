"""Damaged files for every reader: `python -m tests.fuzz`, and a seeded part of it in the suite."""
