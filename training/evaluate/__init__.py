"""Evaluation of bundles and detectors: ROC, FROC, calibration, operating points, Grad-CAM energy."""
