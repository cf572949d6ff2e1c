"""How fast, and how large: ours against the plain way, both measured in one run."""
