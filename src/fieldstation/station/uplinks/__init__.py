"""The uplinks that ship, each an entry point of the group `fieldstation.uplinks`: built as `cls(config, name)`."""
