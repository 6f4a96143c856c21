"""The HTTP service of the node: DICOMweb, status page, health and metrics."""
