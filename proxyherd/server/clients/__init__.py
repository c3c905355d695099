"""The connections of clients to a server: a file for each transport.

- `clients`: all connections, over all transports, and the interfaces of a transport
- `tcp`: the line protocol, over TCP or TLS
- `web_listener`: the web port; it is imported late, with these:
- `web`: what the connections of the web port share
- `http`, `http_answers`: a connection that speaks HTTP
- `websocket`: a connection that speaks frames, and the line protocol in them
- `json_socket`: a client that speaks JSON in frames
"""
