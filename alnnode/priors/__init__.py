"""Earlier reports of a patient: those that this node made, and those in the configured archives."""
