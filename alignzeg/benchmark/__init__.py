"""Many configs, many seeds, one table: what to run, running it, and what came of it."""
