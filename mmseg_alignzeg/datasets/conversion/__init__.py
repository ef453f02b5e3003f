"""Converters from the published datasets to the folders that the configs read."""
