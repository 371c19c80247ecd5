"""Suites that kill processes and count what comes of every request."""
