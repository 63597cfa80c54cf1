"""Public pytest helpers for people who test their own drivers, nodes and stations."""
