"""A hospital's own nodes: a folder of DICOM and one table of nodes, made by hand or by an importer; checked, cropped and trained on."""
