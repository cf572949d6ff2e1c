"""Annotations of other tools: one file a format, which reads a folder or file into what `found.py` describes.

A format is a module with `NAME`, `WHAT` (a few words for people), `read(request) -> Found`, and `matches(source)`, or
`is_one(content)` where it is told by the content of a JSON file; `recognise.py` lists them all.
"""
