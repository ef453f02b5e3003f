"""Time and memory of AlignZeg beside mmseg's SAN: rows, models, steps, measurements, and one table."""
