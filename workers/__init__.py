"""The Celery workers of alnnode."""
