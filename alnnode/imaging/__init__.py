"""Part 10 files to a volume in Hounsfield units, windows and crops."""

from alnnode.imaging import quotes

quotes.stop()
