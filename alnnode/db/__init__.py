"""The SQL database: engines, migrations, the tables that the stages share, and the guarded transition of a job's state."""
