"""The classifier: bundle, networks, ensemble and saliency."""
