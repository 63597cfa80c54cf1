"""The pages. Each has `register(sources)`, which makes it known to the panel's library."""
