"""Data for training the models: a manifest of public sets, readers, cleaning, augmentation and `build`."""
