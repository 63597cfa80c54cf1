"""Where frames come from. Each source is an entry point of the group `fieldstation.sources`."""
