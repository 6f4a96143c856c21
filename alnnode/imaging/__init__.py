"""Reading of DICOM images: Part 10 files to a volume in Hounsfield units, windowing, crops, rendered frames."""

from alnnode.imaging import short_errors

short_errors.install()
