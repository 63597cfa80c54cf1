"""The demonstration: a whole site with simulated hardware on one machine, and an experiment that is checked."""
