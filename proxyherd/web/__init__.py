"""What the web port understands and answers: requests become lines, replies become answers.

No I/O, no clock and no HTTP library: those who serve the port (`server/clients/`) pass in what has arrived.

- `problems`: what is wrong with a request
- `origins`: whose pages may ask, and for whom proxies speak
- `transfers`: versions of HTTP, and the form of bodies on their way
- `bodies`: the size of bodies, and packed ones
- `documents`: reads JSON, whose numbers keep their digits
- `ids`: the names of clients in paths and JSON, and their IDs in the table
- `locations`, `times`: the fields of a report
- `lines`: writes the lines
- `areas`: circles, boxes and polygons
- `rights`: what a token allows
- `revocations`: when a token is good no more
- `tokens`: their form and signature; imported only where they are needed
- `access`: finds the token of a request, and whether it is good now
- `requests`, `answers`: what HTTP carries
- `routes`: what each path does
- `exchanges`: requests that a turn answers
- `handshakes`, `frames`: WebSockets
- `conversations`: connections, from their first byte to their last
- `reports`: one report, and batches of them; `erasures`: the end of a client
- `pages`: what people see of it in a browser
- `ops`: messages of a WebSocket in JSON
- `openapi`, with `openapi_areas`, `openapi_events` and `openapi_parts`: describes all this
- `trackers`: apps on phones, as they are
- `queries`: where a client is, and what is near it
- `nearby`: which clients are near, or inside of an area; `negotiation`: in which type of document
- `follows`: who follows clients or areas; `events`: what they are told then
"""
