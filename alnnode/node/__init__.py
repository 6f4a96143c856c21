"""The supervisor that starts and restarts the processes of a node, and its private Redis."""
