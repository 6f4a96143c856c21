"""The reader's marks: DICOM objects to `records.Mark`, and marks to `records.Node`.

Structured reports (TID 1500), RT Structure Sets, Segmentations and Grayscale or Color Softcopy Presentation States are read.
"""
