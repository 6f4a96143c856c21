"""Notifications of administrators: faults are observed, written as notices, gathered into messages, and sent by webhook and mail."""
