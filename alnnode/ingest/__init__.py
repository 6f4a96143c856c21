"""Receiving objects and deciding when a series is complete."""
