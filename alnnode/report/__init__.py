"""Result objects: one module per kind."""
