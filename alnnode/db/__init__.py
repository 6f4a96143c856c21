"""The SQL database: engines, tables, migrations and the guarded transition that every change of a state is made of."""
