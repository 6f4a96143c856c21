"""The status page, the health checks and the metrics."""
