"""The demonstration of ``alnnode demo``: a phantom study goes to a node, and report and heatmaps come back to a stand-in PACS."""
