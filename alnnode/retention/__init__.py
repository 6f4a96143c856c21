"""Deletion of the files of series whose jobs have ended, and later of their rows."""
