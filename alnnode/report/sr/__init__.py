"""Structured reports (PS3.3 A.35): the measurement report, the text report and the results tree."""
