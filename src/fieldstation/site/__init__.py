"""The site file, its roles under one supervisor, the bridges that join capabilities, and the demonstration."""
