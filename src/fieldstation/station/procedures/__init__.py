"""The procedures that ship. Each is `run(config, logger)` and loops for ever."""
