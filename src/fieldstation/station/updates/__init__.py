"""New configs and new versions: decided, fetched, checked, tried, kept or rolled back."""
