"""Training, evaluation and export of model bundles."""
