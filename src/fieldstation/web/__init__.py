"""The panel, mounted at /ui on the control's HTTP app. Not built yet."""
