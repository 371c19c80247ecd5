"""The embedded language model: data, training, export and evaluation."""
