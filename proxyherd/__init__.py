"""proxyherd: an application server herd on asyncio.

Equal servers take mobile clients' locations, flood them to one another, and answer what is near a client.
The way in is the command line (`cli`); `daemon` puts one server together from the other rooms.
"""

__version__ = "0.1.0"
