"""The status page, health checks and metrics."""
