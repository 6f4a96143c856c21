"""Synthetic axillary CT."""
