"""How clients speak to a server.

- `tcp`: the line protocol
"""
