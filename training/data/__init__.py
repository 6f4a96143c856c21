"""Cohorts: phantoms, implanted nodes, crops, augmentation."""
