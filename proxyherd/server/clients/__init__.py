"""The connections of clients to a server: a file for each transport.

- `clients`: all connections, over all transports, and the interfaces of a transport
- `tcp`: the line protocol, over TCP or TLS
"""
