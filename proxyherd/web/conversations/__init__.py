"""The conversations of the web port as state machines: bytes in, lines for a turn, bytes out.

They have the same interface as the line protocol's `Conversation`, so one shell and one turn serve both. A connection
begins with `HttpConversation`. If a request asks for a WebSocket, the shell goes on with `LineSocket` or `JsonSocket`; if for
events, with `EventStream`. They may send something at any time: `push` returns it, when the server tells that something has changed.

What arrives is only put aside, at most so many bytes. It is read in a turn, a few requests or frames at a time, and never
while the client reads too slowly. So no client can take more time or memory than its share, whatever it sends: what
needs no line, such as a ping, or a request that is refused, counts as one that does.

- `base`: what they have in common
- `http`, `http_bytes`, `http_waits`: requests, and how long they wait; answers
- `streams`: answers without an end, of events
- `sockets`: frames, pings and the end, for both subprotocols
- `lines`, `ops`: the subprotocols
"""
