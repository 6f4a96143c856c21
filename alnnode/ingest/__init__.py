"""What comes in: the C-STORE SCP, the one door of acceptance, and the sweep that turns series into jobs."""
