"""Captures: Secondary Capture images (PS3.3 A.8) with the summary page and one page for each node."""
