"""The DaqData and UbloxControl services on gRPC."""
