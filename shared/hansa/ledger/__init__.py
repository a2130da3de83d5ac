"""Logs that show when they are changed."""
