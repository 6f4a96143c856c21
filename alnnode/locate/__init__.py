"""Axillary lymph nodes: where they are, how large they are, on which side."""
