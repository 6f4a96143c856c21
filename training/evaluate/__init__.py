"""Evaluation of bundles and detectors: AUROC, FROC, operating points, Grad-CAM."""
