"""The parts of `python -m tests.faults.soak`: traffic, faults, samples, what flat means, and the page."""
