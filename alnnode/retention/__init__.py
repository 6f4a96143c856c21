"""Deletion of the files of series whose jobs ended long enough ago."""
