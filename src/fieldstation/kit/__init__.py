"""Small tools, each usable alone: files over sockets, MQTT, AWS IoT, SQLite tables, Slack, logs. Not built yet."""
