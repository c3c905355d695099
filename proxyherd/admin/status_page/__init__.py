"""What the status page shows: this server's own state, and that of the whole herd, for all who look.

    state     what one server says of itself at /state, and how what others say is read
    rates     how fast totals grow, percentiles of the last minute                            pure
    density   how many clients are where, counted a slice at a time
    others    asks the other servers, while somebody looks
    herd      makes one update a second, and sends it to all viewers
    page      what a browser loads

The admin port serves it. While nobody looks, it costs nothing.
"""
