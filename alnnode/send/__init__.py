"""Sending results to their destinations."""
