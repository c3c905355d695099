"""What an operator sets: the herd's file, and its secrets.

- `schema`: the keys of the herd's file, with their types, defaults and bounds
- `address`: where a server listens, and what it dials
- `ports`: which addresses cannot all be listened at
- `herd_file`: finds, reads and checks it
- `auth`: who may use a server: `[auth]` of it
- `web`: checks `[web]` of it, and `hosts` of `[admin]`
- `places`: checks `[places]` of it
- `rates`: what one client may ask: `[rates]` of it
- `erasure`: checks `[erasure]` of it
- `needs`: what a server needs with everything at its limit
- `errors`: the error of all of them
- `token_keys`: the keys of tokens
- `secrets`: the secrets by which servers know one another
"""
