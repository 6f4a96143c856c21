"""Jobs: who may run one, on which input, and what happens to it when it ends or its task is lost."""
