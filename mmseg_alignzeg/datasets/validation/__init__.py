"""The check of a config's data before training: rules, pairs of files, findings, splits."""
