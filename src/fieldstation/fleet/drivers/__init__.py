"""The built-in drivers, registered as entry points like anybody's."""
