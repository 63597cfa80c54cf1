"""Remote stations that run unattended: procedures, a durable outbox, uplinks, updates. Not built yet."""
