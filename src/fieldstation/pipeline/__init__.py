"""Graphs of nodes on JetStream: runners, process context, manifest, local supervision. Not built yet."""
