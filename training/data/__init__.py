"""Training data: cohorts of phantoms, nodes implanted into CT, crops, augmentation."""
