"""Retrieve the series of earlier studies from an archive, slowly and at the lowest priority."""
