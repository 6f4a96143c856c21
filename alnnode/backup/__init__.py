"""Back up the data of a node while it runs, and restore it where no node runs."""
