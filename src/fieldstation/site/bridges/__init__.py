"""What joins capabilities, as nodes of a pipeline: frames, stations and the fleet on the way in, an archive at the end.

In a krt.yaml each is an image: `node:frames`, `node:stations`, `node:fleet` (triggers), `node:archive` (exit).
"""
