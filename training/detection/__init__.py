"""Training and judging the detector on patients: readers' marks, crops of axillae, implanted nodes, fitting, evaluation."""
