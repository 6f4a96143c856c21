"""Finding the axillary lymph nodes in a volume."""
