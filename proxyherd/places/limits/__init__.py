"""What keeps a provider over the network from being asked too often, or waited for too long.

- `budget`: how many calls a day the whole herd may make
- `shares`: how many of these are for one asker
- `crowd`: who waits, and whose turn it is
- `gate`: how many calls at once
- `breaker`: no calls where calls fail
- `resilience`: all of it around one provider
"""
