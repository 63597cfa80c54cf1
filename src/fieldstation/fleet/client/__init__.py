"""The async client: reserve devices, evaluate on them, hear what happens to them. `fleet.blocking` calls it."""
