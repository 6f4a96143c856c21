"""Follow-up: choose a prior report, register the chests, match the nodes, measure growth."""
