"""Training, export and evaluation of the abusive-language classifier that the safety service ships."""
