"""Camera frames, live: sources, a hub, the DaqData gRPC service, clients, plots. Not built yet."""
