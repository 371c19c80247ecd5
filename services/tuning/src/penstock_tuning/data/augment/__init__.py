"""Augmentation: pure functions of a text and a seeded draw, and the plan of which examples get which."""
