"""Play the Containerfiles of deploy/ without a container engine: their steps in folders that hold a bare Debian."""
