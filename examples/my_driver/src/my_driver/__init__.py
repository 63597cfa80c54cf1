"""An example of a driver in a package of its own."""
