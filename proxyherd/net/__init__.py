"""How this machine's network is used, whatever is said over it.

- `binding`: opens the ports of a server, and tries again where one is taken
- `certificates`: when they expire
- `crl`: lists of revoked certificates
- `dialling`: one after another of several addresses
- `http`: a GET and its answer, for admin ports
- `listening`: accepts connections, no more than allowed
- `low_water`: lets an idle connection wake the process less often
- `networks`: addresses of clients, as limits count them
- `resolving`: looks names up without waiting for silent name servers
- `tls`: certificates, and what they must prove
"""
