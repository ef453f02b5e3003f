"""The data of a config, looked at before training: rules, pairs of files, findings, splits."""
