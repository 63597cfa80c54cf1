"""One runtime for laboratory and field instruments: reserve, run, stream, process, decide.

Each name below is imported when it is first used; `import fieldstation` alone costs nothing.
"""

__version__ = "0.1.0"
