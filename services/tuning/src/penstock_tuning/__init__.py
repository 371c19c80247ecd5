"""Recipes that train, evaluate and export the small models shipped with Penstock."""
