"""Detectors made of rules: each has one file, none needs a model."""
