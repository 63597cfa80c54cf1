"""The numbered SQL files of the kit's own tables."""
