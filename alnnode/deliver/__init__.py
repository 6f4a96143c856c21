"""Delivery of results to C-STORE and STOW-RS destinations, with retries and storage commitment."""
