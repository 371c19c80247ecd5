"""Screening of prompts and completions: detectors, windows, policy, and the stage that applies them."""
