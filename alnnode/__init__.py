"""alnnode: an AI node that classifies axillary lymph nodes on CT and answers in DICOM."""

__version__ = "0.1.0"
