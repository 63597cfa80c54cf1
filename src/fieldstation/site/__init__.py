"""The site file, its roles, and the bridges that join capabilities. Not built yet."""
