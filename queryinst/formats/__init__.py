"""Annotations of other tools: one file a format, which reads a folder or file into what `found.py` describes."""
