"""Further result objects: Segmentation, Parametric Map, Key Object Selection, Presentation State, PDF, rejection note."""
