"""KAI on NATS: codec, connection, publisher, consumers, stores."""
