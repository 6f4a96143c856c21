"""Part 10 files to a volume in Hounsfield units, windows and crops."""
