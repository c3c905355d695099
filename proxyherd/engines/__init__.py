"""Where reports are stored and questions looked up: `herd`, in every server; or `redis`, in a Redis Cluster."""
