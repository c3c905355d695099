"""Who follows clients and areas, and what they are told.

- `follow`: the commands that begin and end it
- `event`: what followers are told
- `follower`: one connection that follows, and what waits for it
- `followed_clients`: the clients that are followed
- `followed_areas`: the areas that are followed
- `snapshots`: how a follow begins
- `follows`: all follows of a server
"""
