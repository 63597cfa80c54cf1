"""The documented spelling `client.lib`: faces of what lives in `fieldstation.fleet.client` and `.blocking`."""
