"""Part 10 files to a volume in Hounsfield units, windows and crops."""

from alnnode.imaging import short_errors

short_errors.stop()
