"""A trained network on anybody's pictures and videos: the Python API, and what `queryinst.predict` is made of."""
