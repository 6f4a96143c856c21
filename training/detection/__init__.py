"""Training and evaluation of the detector: readers' marks, crops of axillae, implanted nodes, training, evaluation."""
