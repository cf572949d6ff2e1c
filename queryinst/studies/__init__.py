"""Runs: configuration to identity, identity to folder, folder to result."""
