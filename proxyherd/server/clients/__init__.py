"""The connections of clients to a server: a file for each transport.

- `clients`: all connections, over all transports, and the interfaces of a transport
- `tcp`: the line protocol, over TCP or TLS
- `web`: the web port; it is imported late, with
- `http_reader`: splits what arrives into requests of HTTP
"""
