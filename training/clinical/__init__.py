"""Training on a hospital's own nodes: a folder of DICOM files and a table of nodes, which is imported, checked, cropped and used."""
