"""Pages, tables, pictures and model cards that training writes."""
