"""Labelled text for personal data, generated from templates, name lists and checksum generators in six languages."""
