"""Personal data sent in on purpose, each value once in the world, and searched for wherever it must not be."""
