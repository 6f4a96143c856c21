"""What training writes: bundles with their model cards, pages, tables and pictures."""
