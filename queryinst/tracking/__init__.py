"""Linking instances from frame to frame of a video."""
