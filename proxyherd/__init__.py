"""proxyherd: an application server herd on asyncio.

Equal servers take mobile clients' locations, flood them to one another, and answer what is near a client.
The way in is the command line (`cli`); `server/daemon` puts one server together. The folders are floors, and
docs/design.md says which stands on which.
"""

__version__ = "1.0.0"
