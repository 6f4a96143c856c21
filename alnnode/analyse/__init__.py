"""Jobs: which worker may run a job on which input, what follows when it ends or its task is lost, and what an operator may do to it."""
