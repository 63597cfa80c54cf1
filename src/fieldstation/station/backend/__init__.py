"""The documented backends: each `run(config, logger, teardown_indicator)` sends until it is torn down and drained."""
