"""The C-STORE SCP, the acceptance of objects, and the sweep that turns complete series into jobs."""
